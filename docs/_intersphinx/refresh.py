"""Write the small inventories of this directory anew: `python docs/_intersphinx/refresh.py`.

They stand in for those of other projects where a build has no network. Each holds the names of a
few modules, as text: the first format of Sphinx. `refresh.py celery objects.inv` reads a file that
you have instead of the project's site.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

from sphinx.util.inventory import InventoryFile

HERE = Path(__file__).parent

#: Where each project's documentation is, and what of it our pages may refer to.
PROJECTS = {
    "celery": (
        "https://docs.celeryq.dev/en/stable/",
        ("celery.Celery", "celery.beat", "celery.exceptions", "celery.schedules"),
    ),
    "dateutil": ("https://dateutil.readthedocs.io/en/stable/", ("dateutil.rrule", "dateutil.tz")),
    "kombu": (
        "https://docs.celeryq.dev/projects/kombu/en/stable/",
        ("kombu.Producer", "kombu.exceptions"),
    ),
    "python": (
        "https://docs.python.org/3/",
        (
            "collections.abc",
            "datetime",
            "json",
            "zoneinfo",
            "AttributeError",
            "Exception",
            "KeyError",
            "RuntimeError",
            "TypeError",
            "ValueError",
            "bool",
            "bytes",
            "dict",
            "float",
            "int",
            "list",
            "str",
            "tuple",
        ),
    ),
    "redis": ("https://redis.readthedocs.io/en/stable/", ("redis",)),
}

ROLES = ("class", "exception", "function", "method", "attribute", "property", "data", "module")


def main(names: list[str]) -> None:
    """Write the inventory of the one project that is named, from a file, or of all."""
    if names:
        project, source = names
        write(project, Path(source).read_bytes())
        return
    for project, (url, _) in PROJECTS.items():
        with urlopen(f"{url}objects.inv") as reply:
            write(project, reply.read())


def write(project: str, inventory: bytes) -> None:
    """Keep of an inventory what our pages may refer to."""
    head = ["# Sphinx inventory version 1", f"# Project: {project}", "# Version: stable"]
    lines = [*head, *sorted(entries(inventory, PROJECTS[project][1]))]
    (HERE / f"{project}.inv").write_text("\n".join(lines) + "\n")


def entries(inventory: bytes, wanted: tuple[str, ...]) -> Iterator[str]:
    """The lines for the wanted names and what is in them."""
    known = InventoryFile.loads(inventory, uri="").data
    for role in ROLES:
        for name, item in known.get(f"py:{role}", {}).items():
            if any(name == each or name.startswith(f"{each}.") for each in wanted):
                yield f"{name} {'mod' if role == 'module' else role} {item.uri.partition('#')[0]}"


if __name__ == "__main__":
    main(sys.argv[1:])
