"""Publishing a batch of messages at the price of a batch.

What kombu does for each message, to wrap it in retries and to bind its queue again, costs as much
as writing it. While messages are only recorded, one for a known queue needs nothing of that:
nothing is declared, and a retry would have nothing to repair.

Celery also looks up some settings for each message, each under all its names in one mapping after
the other. That is a tenth of the cost of a message.

A connection that went silent, for example behind a firewall that forgot it, must not hold up beat
for ever: see :func:`connection_for_sending`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any

from kombu.messaging import Producer

from ..errors import SettingError
from ..store.urls import scheme_of

#: The settings that Celery looks up for each message; older versions do not know all of them.
LOOKED_UP_PER_MESSAGE = (
    "broker_pool_acquire_timeout",
    "task_always_eager",
    "task_default_queue",
    "task_repr_maxlevels",
    "task_send_sent_event",
)

#: Seconds after which a Redis broker that does not answer counts as away.
REDIS_TIMEOUT = 5

#: The same of RabbitMQ, which may block publishers for a while when it runs short of memory.
AMQP_TIMEOUT = 30

_REDIS_OPTIONS = {"socket_timeout": REDIS_TIMEOUT}
_AMQP_OPTIONS = {
    "confirm_publish": True,
    "read_timeout": AMQP_TIMEOUT,
    "write_timeout": AMQP_TIMEOUT,
}

#: The options of a connection that sends, by transport, unless the application gives them.
SENDING_OPTIONS: dict[str, dict[str, Any]] = {
    "redis": _REDIS_OPTIONS,
    "rediss": _REDIS_OPTIONS,
    "sentinel": _REDIS_OPTIONS,
    "amqp": _AMQP_OPTIONS,
    "amqps": _AMQP_OPTIONS,
    "pyamqp": _AMQP_OPTIONS,
}


def connection_for_sending(app: Any) -> Any:
    """A connection to the broker that ends a wait for an answer; not connected yet.

    A Redis broker is given up on after ``REDIS_TIMEOUT`` (5) seconds of silence, RabbitMQ after
    ``AMQP_TIMEOUT`` (30). And RabbitMQ confirms each message: else py-amqp takes for sent what is
    in the buffer of a socket. What the application says in ``broker_transport_options`` counts.
    """
    connection = app.connection_for_write()
    for name, value in SENDING_OPTIONS.get(connection.transport_cls, {}).items():
        connection.transport_options.setdefault(name, value)
    return connection


#: Transports that need what kombu installs under another name.
_EXTRAS = {"kafka": "confluentkafka", "rediss": "redis", "sentinel": "redis", "sqla": "sqlalchemy"}


def require_transport(app: Any) -> None:
    """Refuse a broker whose transport cannot be imported: it would never be reached. No round trip.

    Raises :exc:`~redbeat.errors.SettingError` (a ``ValueError``), which says what to install.
    """
    try:
        connection = app.connection_for_write()
        name = str(connection.transport_cls)
        _ = connection.transport
    except ImportError as exc:
        scheme = scheme_of(app.conf.broker_write_url) or name
        raise SettingError(
            f"The transport of the broker, {scheme!r}, cannot be imported ({exc}). "
            f"{_how_to_install(scheme)}, or correct broker_url."
        ) from None
    except LookupError as exc:
        raise SettingError(f"broker_url cannot be used: {exc.args[0]}") from None


def _how_to_install(scheme: str) -> str:
    extra = _EXTRAS.get(scheme, scheme)
    with suppress(PackageNotFoundError):
        if extra in (metadata("kombu").get_all("Provides-Extra") or ()):
            return f'Install what it needs: python3 -m pip install "kombu[{extra}]"'
    return "Install the module that is missing"


class PreparingProducer(Producer):
    """A producer that can prepare many messages cheaply, for queues that it knows.

    The first message for a queue is published as usual: it declares the queue, with retries.
    """

    is_preparing = False

    def publish(self, body: Any, *args: Any, **options: Any) -> Any:
        """See :meth:`kombu.Producer.publish`."""
        if self.is_preparing and self._are_declared(options.get("declare") or ()):
            options.update(declare=None, retry=False)
        return super().publish(body, *args, **options)  # type: ignore[no-untyped-call]  # kombu's

    def _publish(self, *args: Any, **kwargs: Any) -> Any:
        """What kombu does with a message that has been built: declare its queue, and send it."""
        try:
            return super()._publish(*args, **kwargs)  # type: ignore[no-untyped-call]  # kombu's
        except Exception as exc:
            with suppress(AttributeError):
                vars(exc)[_OF_SENDING] = True
            raise

    def _are_declared(self, entities: Sequence[Any]) -> bool:
        known = self.connection.declared_entities
        return bool(known) and all(
            entity.can_cache_declaration and hash(entity) in known for entity in entities
        )


@contextmanager
def preparing(producer: Any) -> Iterator[None]:
    """In this block, nobody sends what the producer publishes: it need not be ready for that."""
    can_prepare = isinstance(producer, PreparingProducer)
    if can_prepare:
        producer.is_preparing = True
    try:
        yield
    finally:
        if can_prepare:
            producer.is_preparing = False


#: Marks an error that came while a message was on its way, and not while it was built.
_OF_SENDING = "redbeat_is_of_sending"


def is_of_sending(exc: BaseException) -> bool:
    """Whether this error came from the transport: the message had been built and serialised."""
    return getattr(exc, _OF_SENDING, False) is True


def preparing_class(producer: Any) -> Any:
    """The class of producers, perhaps an application's own, that can prepare messages cheaply.

    A function that makes producers is returned unchanged.
    """
    if not isinstance(producer, type) or not issubclass(producer, Producer):
        return producer
    return type(producer.__name__, (PreparingProducer, producer), {})


def settle_settings(conf: Any) -> None:
    """Keep what Celery looks up for each message where it looks first: among the changes.

    A value that is set later under the same name still counts. One set under the old, upper-case
    name may not, nor does a change of the object that the configuration was read from.
    """
    for name in LOOKED_UP_PER_MESSAGE:
        with suppress(KeyError):
            conf[name] = conf[name]
