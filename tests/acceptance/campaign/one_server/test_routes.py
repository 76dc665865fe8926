"""The same server, reached by two routes: a unix socket and TCP."""

from typing import Any

import pytest

from support.campaign import BROKER_DB, KEEPING_ALL, ROLES, LayField, take_share
from support.servers import StartRedis
from support.strikes import as_a_batch_appears, strike_in_mid_tick

BY_SOCKET = {
    "broker_url": f"redis+socket://{{socket}}?virtual_host={BROKER_DB}",
    "redbeat_redis_url": "unix://{socket}?db=0",
}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("role", ROLES.values(), ids=ROLES)
@pytest.mark.parametrize("wire", BY_SOCKET)
def test_no_run_is_lost_or_doubled_where_one_of_both_comes_through_a_unix_socket(
    start_redis: StartRedis, lay_field: LayField, wire: str, role: dict[str, Any]
) -> None:
    """The URLs have nothing in common, and yet lead to the same server."""
    server = start_redis(**KEEPING_ALL, unixsocket="s")
    url = BY_SOCKET[wire].format(socket=server.directory / "s")
    field = lay_field(server, server, BROKER_DB, **role, **{wire: url})
    for _ in range(take_share(0.3)):
        strike_in_mid_tick(field, as_a_batch_appears)
