"""Users who edit, reschedule and delete entries whose batch is on its way to the same server."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery

from redbeat import RedBeatSchedulerEntry
from support.apps import MakeApp
from support.campaign import ROLES, ROUNDS, Field, MakeField
from support.runs import CALENDAR, INTERVAL, PREFIX
from support.waiting import wait_until


class User:
    """Somebody who changes entries of a field through an application of his own."""

    def __init__(self, app: Celery, field: Field) -> None:
        self._app = app
        self._runs = field.runs
        self._alive = list(field.runs.names)
        self._untouched = set(field.runs.names)

    def change_something(self) -> None:
        """Edit, reschedule or delete an entry that is chosen at random.

        Each is rescheduled or deleted once at most, so that something is left to run.
        """
        name = random.choice(self._alive)
        change: Callable[[str], None] = self.edit
        if name in self._untouched and random.random() < 1 / 3:
            change = random.choice([self.reschedule, self.delete])
            self._untouched.discard(name)
        change(name)

    def edit(self, name: str) -> None:
        """Save an entry with another argument; its slot stays as it is."""
        entry = self._load(name)
        entry.kwargs["edited"] = random.random()
        entry.save()

    def reschedule(self, name: str) -> None:
        """Count the entry's next run from now, so that it is due tomorrow."""
        self._load(name).reschedule()
        self._runs.cancel(name)

    def delete(self, name: str) -> None:
        """Delete an entry for good."""
        self._alive.remove(name)
        self._load(name).delete()
        self._runs.cancel(name, deleted=True)

    def _load(self, name: str) -> RedBeatSchedulerEntry:
        return RedBeatSchedulerEntry.from_key(f"{PREFIX}{name}", app=self._app)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("role", ROLES.values(), ids=ROLES)
def test_edited_entries_run_once_and_no_entry_runs_after_it_was_rescheduled_or_deleted(
    make_field: MakeField, make_app_with: MakeApp, role: dict[str, Any]
) -> None:
    """What is rescheduled or deleted may have run before that, once."""
    field = make_field(kinds=(INTERVAL, CALENDAR), **role)
    app = make_app_with(redbeat_redis_url=field.schedule_server.url())
    beats = [field.start_beat() for _ in range(2)]
    for _ in range(ROUNDS):
        user = User(app, field)
        field.runs.arm()
        change_until_settled(field, user)
        field.runs.wait_for_stillness()
        field.note()
    assert all(beat.terminate() == 0 for beat in beats)


def change_until_settled(field: Field, user: User) -> None:
    """Change entries, one after the other without a pause, until nothing is due any more."""
    field.runs.wait_for_first_message()

    def change_some() -> bool:
        for _ in range(20):
            user.change_something()
        return not field.runs.unsettled()

    wait_until(change_some, 60, "a schedule with nothing due or leased")
