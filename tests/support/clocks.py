"""A clock that a test sets for a program, while the program's other clocks go on."""

from pathlib import Path

from support.servers import ServerNotFoundError

LIBRARIES = ("/usr/lib", "/usr/local/lib", "/lib")


class ClockLibraryNotFoundError(ServerNotFoundError):
    """The library libfaketime is not on this machine: on Debian, install the package faketime."""


class FakeClock:
    """The clock of one program, by libfaketime; it shows the time until it is set.

    Args:
        directory: Where the program looks for what the clock shows.
    """

    def __init__(self, directory: Path) -> None:
        self._library = _find_library()
        self._file = directory / "clock"
        self.set(0)

    def set(self, seconds: int) -> None:
        """Show the time so many seconds ahead, or back."""
        part = self._file.with_suffix(".new")
        part.write_text(f"{seconds:+d}\n")
        part.replace(self._file)

    @property
    def prefix(self) -> list[str]:
        """What stands before the command line of the program."""
        variables = {
            "LD_PRELOAD": self._library,
            "FAKETIME_TIMESTAMP_FILE": self._file,
            "FAKETIME_NO_CACHE": 1,
            "DONT_FAKE_MONOTONIC": 1,
        }
        return ["env", *(f"{name}={value}" for name, value in variables.items())]


def _find_library() -> str:
    patterns = ("*/faketime/libfaketime.so.1", "faketime/libfaketime.so.1")
    found = [path for root in LIBRARIES for each in patterns for path in Path(root).glob(each)]
    if not found:
        raise ClockLibraryNotFoundError
    return str(found[0])
