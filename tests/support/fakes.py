"""fakeredis as applications use it: with its `lua` extra, and without."""

import functools
import importlib
import sys
from types import ModuleType
from unittest import mock

import redis


def fake_client() -> redis.Redis:
    """An empty fake server's client, scripting included."""
    return _empty(importlib.import_module("fakeredis"))


def fake_client_without_lua() -> redis.Redis:
    """An empty fake server's client to which EVAL, EVALSHA and SCRIPT are unknown commands."""
    return _empty(_fakeredis_without_lua())


def _empty(fakeredis: ModuleType) -> redis.Redis:
    client: redis.Redis = fakeredis.FakeRedis(server=fakeredis.FakeServer(), decode_responses=True)
    return client


@functools.cache
def _fakeredis_without_lua() -> ModuleType:
    """A second import of fakeredis, which does not find the Lua that the extra brings."""
    with mock.patch.dict(sys.modules, {"lupa": None}):
        for name in [name for name in sys.modules if name.partition(".")[0] == "fakeredis"]:
            del sys.modules[name]
        return importlib.import_module("fakeredis")
