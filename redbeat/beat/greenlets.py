"""Programs that gevent or eventlet has patched.

Their event loop runs signal handlers while the program waits. Code that blocks there raises an
error, so it has to be left until the program itself goes on.
"""

from __future__ import annotations

import sys
from contextlib import suppress


def is_in_event_loop() -> bool:
    """Whether the caller runs in the event loop of gevent or eventlet, and must not block."""
    # Only a program that has imported them can have such a loop.
    with suppress(Exception):
        if "gevent" in sys.modules:
            gevent = sys.modules["gevent"]
            return gevent.getcurrent() is gevent.get_hub()
        if "eventlet.hubs" in sys.modules and "greenlet" in sys.modules:
            hub = sys.modules["eventlet.hubs"].get_hub()
            return sys.modules["greenlet"].getcurrent() is hub.greenlet
    return False
