"""What the commands share: the session, arguments for names, and errors in one line."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import update_wrapper
from itertools import islice
from typing import Any

import click
from celery.app.utils import find_app
from celery.bin.base import CeleryCommand
from click.shell_completion import CompletionItem

from ..errors import EntryError, SettingError
from ..schedulers import REDBEAT_REDIS_KEY, ensure_conf, get_redis
from ..store.access import REDIS_ERRORS
from ..store.clients import check_options
from ..store.escaping import one_line
from ..store.retrying import direct
from ..store.urls import sanitized
from ..timetable import Timetable
from ..timetable.listings import Listing
from .backup import why_unwritable
from .terminal import Console

#: How many names are searched for ones similar to what was typed.
NEAR_NAMES = 10_000

#: How many names a shell is offered for completion.
COMPLETIONS = 50

#: How many names a message lists.
NAMED = 3


class UnavailableError(click.ClickException):
    """Redis cannot be reached, or refuses to serve."""

    exit_code = 3

    def __init__(self, app: Any, exc: Exception) -> None:
        url = sanitized(ensure_conf(app).redis_url)
        super().__init__(one_line(f"Redis at {url} is unavailable: {exc}"))


class BadSettingError(click.ClickException):
    """The settings of the application do not allow the schedule to be found."""

    exit_code = 2


class Command(CeleryCommand):  # type: ignore[misc]  # Celery has no types
    """A command that reports each error in one line."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read what was typed."""
        try:
            rest: list[str] = super().parse_args(ctx, args)
        except RecursionError:
            raise click.UsageError("The JSON of an option is nested too deeply.", ctx) from None
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except REDIS_ERRORS as exc:
            raise UnavailableError(ctx.obj.app, exc) from exc
        except SettingError as exc:
            has_app = ctx.find_root().params.get("app") is not None
            hint = "" if has_app else "No application given; use celery -A proj redbeat. "
            raise BadSettingError(hint + exc.message) from exc
        except EntryError as exc:
            raise click.ClickException(one_line(str(exc))) from exc
        except click.ClickException as exc:
            # It may name entries, whose names other programs choose.
            if exc.message.isprintable():
                raise
            message = one_line(exc.format_message())
            if isinstance(exc, click.UsageError):
                raise click.UsageError(message, exc.ctx) from exc
            raise click.ClickException(message) from exc
        except OSError as exc:
            # Click deals with other errors, such as that of a closed pipe.
            if exc.errno != errno.ENOSPC:
                raise
            # Python would fail again to write what it still holds when it ends, see
            # https://docs.python.org/3/library/signal.html#note-on-sigpipe.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.ClickException(f"Cannot write the output: {exc.strerror}") from exc


class Session:
    """What every command needs: the application, its timetable and a console."""

    def __init__(self, ctx: click.Context) -> None:
        self.app = ctx.obj.app
        self.console = Console(ctx.obj.no_color)
        self.timetable = open_timetable(self.app)
        check_options(get_redis(self.app))

    @contextlib.contextmanager
    def known_names(self) -> Iterator[None]:
        """Turn the ``KeyError`` of an unknown entry into a message that suggests similar names."""
        try:
            yield
        except KeyError as exc:
            raise click.ClickException(self._explain_unknown(exc.args[0])) from None

    def _explain_unknown(self, name: str) -> str:
        if not name:
            return "The name is empty."
        near = get_close_matches(name, islice(self.timetable, NEAR_NAMES), n=3)
        if name in near:
            return (
                f"Entry {name!r} has lost its definition; only its place in the schedule is left. "
                "Use `delete` to remove it."
            )
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        return f"There is no entry {name!r}.{hint}"

    def progress(self, items: Iterable[Any], length: int | None, label: str) -> Any:
        """Show a progress bar over the items, on a terminal only."""
        if not self.console.is_terminal:
            return contextlib.nullcontext(items)
        return click.progressbar(items, length=length, label=label)


def open_timetable(app: Any) -> Timetable:
    """The timetable of an application, with a client that reports an outage at once."""
    setattr(app, REDBEAT_REDIS_KEY, direct(get_redis(app)))
    return Timetable(app)


def with_session(function: Callable[..., Any]) -> Callable[..., Any]:
    """Pass a command its session."""

    @click.pass_context
    def call(ctx: click.Context, /, **parameters: Any) -> Any:
        return function(Session(ctx), **parameters)

    return update_wrapper(call, function)


def complete_name(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The names in the schedule that begin like this; none if it cannot be read."""
    try:
        timetable = open_timetable(find_app(ctx.find_root().params["app"]))
        # A shell reads them line by line.
        printable = filter(str.isprintable, timetable)
        names = (name for name in printable if name.startswith(incomplete))
        return [CompletionItem(name) for name in islice(names, COMPLETIONS)]
    except Exception:
        # A shell that waits for words has no use for an error.
        return []


name_argument = click.argument("name", metavar="NAME", shell_complete=complete_name)
names_argument = click.argument(
    "names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_name
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def writable(listing: Listing) -> Listing:
    """The listing, as a broken one if its entry can be read but not be written as JSON."""
    reason = "" if listing.entry is None else why_unwritable(listing.entry)
    return replace(listing, state="broken", entry=None, reason=reason) if reason else listing


def named(names: Sequence[str], others: int = 0) -> str:
    """The first few names, and how many more there are, including ``others``."""
    more = len(names) - NAMED + others
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
