"""A client of a real server whose connection breaks at a chosen moment."""

from typing import Any

import redis

from support.ports import LOOPBACK
from support.servers import RedisServer


class LosingClient(redis.Redis):
    """The server executes each command, and the answers to the next `losses` EVALSHA are lost."""

    losses = 0

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command, and perhaps lose the answer."""
        answer = super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # its gap
        if args[0] == "EVALSHA" and self.losses:
            self.losses -= 1
            raise redis.ConnectionError("the answer was lost")
        return answer


def losing_client(server: RedisServer) -> LosingClient:
    """A client of this server, which loses nothing yet."""
    return LosingClient(host=LOOPBACK, port=server.port, decode_responses=True)
