"""How often a run reaches the broker if beat fails at the worst moment."""

from __future__ import annotations

from enum import Enum
from typing import Any

from redis.client import Redis

from .broker import connect_once
from .publishing import connection_for_sending

#: Seconds for which the start-up banner waits for the broker, to connect and to answer.
PATIENCE = 1


class Guarantee(Enum):
    """What a beat can promise with this broker; the value is how people read it."""

    EXACTLY_ONCE = "exactly once (same server)"
    AT_LEAST_ONCE = "at least once"


def foresee(app: Any, client: Any) -> Guarantee:
    """What will probably be found out with the first run; up to two round trips.

    The proof is made then. Here, the two connections are asked which server they lead to: raises
    whatever they raise, and :exc:`LookupError` if that does not tell.
    """
    with connection_for_sending(app) as connection:
        if connection.transport.driver_type != "redis":
            return Guarantee.AT_LEAST_ONCE
        connection.transport_options.update(
            socket_connect_timeout=PATIENCE, socket_timeout=PATIENCE
        )
        connect_once(connection)
        with Redis(connection_pool=connection.default_channel.pool) as theirs:
            servers = {str(each.info("server")["run_id"]) for each in (client, theirs)}
    return Guarantee.AT_LEAST_ONCE if len(servers) > 1 else Guarantee.EXACTLY_ONCE
