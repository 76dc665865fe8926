"""``celery -A proj redbeat``: the timetable on the command line."""

from __future__ import annotations

from typing import Any

import click
from celery.bin.base import handle_preload_options

from ..tools import changing, checking, looking, status, transfer


@click.group()
@click.pass_context
@handle_preload_options  # type: ignore[untyped-decorator]  # Celery has no types
def redbeat(ctx: click.Context, **kwargs: Any) -> None:
    """Show and change the schedule that redbeat keeps in Redis.

    Works without a running beat. Exit codes: 0, success; 1, a problem was found; 2, wrong usage or
    a bad setting; 3, Redis is unavailable.
    """


for command in (
    looking.list_,
    looking.show,
    looking.upcoming,
    changing.add,
    changing.pause,
    changing.resume,
    changing.run,
    changing.delete,
    changing.prune,
    transfer.export,
    transfer.import_,
    status.status,
    checking.check,
):
    redbeat.add_command(command)
