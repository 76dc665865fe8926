"""Publishing a batch of messages at the price of a batch.

What kombu does for each message, to wrap it in retries and to bind its queue anew, costs as much as
writing it. In a batch a message for a queue that is known only joins a buffer: nothing is declared,
and there is nothing that a retry could mend.

And Celery looks up some settings for each message, each under all its names in one mapping after
the other: a tenth of what a message costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from kombu.messaging import Producer

#: The settings that Celery looks up for each message; older versions do not know all of them.
LOOKED_UP_PER_MESSAGE = (
    "broker_pool_acquire_timeout",
    "task_always_eager",
    "task_default_queue",
    "task_repr_maxlevels",
    "task_send_sent_event",
)


class BatchProducer(Producer):
    """A producer whose messages in a batch are only prepared and kept, as far as that will do.

    The first message for a queue is published as ever: it declares the queue, with retries.
    """

    _is_batching = False

    @contextmanager
    def batch(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """See :meth:`kombu.Producer.batch`."""
        with super().batch(*args, **kwargs):  # type: ignore[no-untyped-call]  # kombu's own gap
            self._is_batching = True
            try:
                yield
            finally:
                self._is_batching = False

    def publish(self, body: Any, *args: Any, **options: Any) -> Any:
        """See :meth:`kombu.Producer.publish`."""
        if self._is_batching and self._are_declared(options.get("declare") or ()):
            options.update(declare=None, retry=False)
        return super().publish(body, *args, **options)  # type: ignore[no-untyped-call]  # kombu's

    def _are_declared(self, entities: Sequence[Any]) -> bool:
        known = self.connection.declared_entities
        return bool(known) and all(
            entity.can_cache_declaration and hash(entity) in known for entity in entities
        )


def batching(producer: Any) -> Any:
    """The class of producers, one of an application's own perhaps, with cheap batches.

    What makes producers and is no class of them is left as it is.
    """
    if not isinstance(producer, type) or not issubclass(producer, Producer):
        return producer
    return type(producer.__name__, (BatchProducer, producer), {})


def settle_settings(conf: Any) -> None:
    """Keep what Celery looks up for each message where it looks first: among what was changed.

    What somebody sets later counts as ever, under these names. An old, upper-case name may not, nor
    does a change of the object that the configuration was read from.
    """
    for name in LOOKED_UP_PER_MESSAGE:
        with suppress(KeyError):
            conf[name] = conf[name]
