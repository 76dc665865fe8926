"""Users of a Redis server that may do little."""

from dataclasses import dataclass

from support.ports import LOOPBACK
from support.servers import RedisServer

#: What celery-redbeat 2.x needs, with the default prefix.
SUFFICIENT = (
    "~redbeat:* &redbeat:* +@connection +get +set +del +expire +pexpire +pttl +hget +hset +hsetnx "
    "+hmget +zadd +zrem +zrange +zrangebyscore +zscore +zrank +smembers +sadd +srem +sscan +eval "
    "+evalsha +script +multi +exec +config|get"
)

#: All that there is, but for what a test takes away.
EVERYTHING = "~* &* +@all"


@dataclass(frozen=True)
class Users:
    """The URLs of a server for a user with limited rights, and for one with all rights."""

    guest_url: str
    admin_url: str


def guard(server: RedisServer, rules: str) -> Users:
    """Let a user with these ACL rules in, and an administrator; nobody else any more."""
    with server.client() as client:
        for name, rights in (("admin", EVERYTHING), ("guest", rules)):
            client.execute_command(
                "ACL", "SETUSER", name, "reset", "resetchannels", "on", ">secret", *rights.split()
            )
        client.execute_command("ACL", "SETUSER", "default", "off")
    return Users(*(f"redis://{n}:secret@{LOOPBACK}:{server.port}" for n in ("guest", "admin")))
