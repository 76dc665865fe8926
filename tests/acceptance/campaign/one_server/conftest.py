"""Fields where one Redis server holds both the schedule and the broker's queues, the usual set-up.

No run may be lost or doubled there, whatever is struck and when: nothing is excused.
"""

from typing import Any

import pytest

from support.campaign import BROKER_DB, KEEPING_ALL, Field, LayField, MakeField
from support.servers import StartRedis


@pytest.fixture
def make_field(start_redis: StartRedis, lay_field: LayField) -> MakeField:
    """Lay a field: `make_field(400, redbeat_batch_size=10)`; the server keeps its data."""

    def make(*args: Any, **options: Any) -> Field:
        server = start_redis(**KEEPING_ALL)
        return lay_field(server, server, BROKER_DB, *args, **options)

    return make
