"""How the package is built, in figures: `python tests/figures.py`.

Exits with 1 if a figure is past its bound. Lines count as they are, comments and docstrings too; a
function's length is that of its body without the docstring. A *private helper* is a function or
method whose name begins with an underscore, *named once* if nothing else in the package mentions
the name a second time. A *reach* is a test that uses a private name of the package from outside.
"""

import ast
import re
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "redbeat"
TESTS = ROOT / "tests"
FACADE = PACKAGE / "schedulers.py"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Figure:
    """One line of the table; `most` is its bound, if it has one."""

    name: str
    value: float
    most: float | None = None
    remark: str = ""

    @property
    def is_past(self) -> bool:
        """Whether the value is more than it may be."""
        return self.most is not None and self.value > self.most

    def __str__(self) -> str:
        bound = "" if self.most is None else f"at most {self.most:g}"
        mark = "PAST ITS BOUND " if self.is_past else ""
        return f"{self.name:<42}{self.value:>8g}  {bound:<14}{mark}{self.remark}".rstrip()


def parse(directory: Path) -> dict[Path, ast.Module]:
    """The Python files below a directory, by path."""
    return {path: ast.parse(path.read_text()) for path in sorted(directory.rglob("*.py"))}


def nodes_of(modules: dict[Path, ast.Module]) -> Iterator[ast.AST]:
    """All nodes of all modules."""
    for module in modules.values():
        yield from ast.walk(module)


def lines_of(path: Path) -> int:
    """How many lines a file has."""
    return len(path.read_text().splitlines())


def span(node: ast.ClassDef) -> int:
    """How many lines a class has."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def length(function: Function) -> int:
    """How many lines the body of a function has, without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def is_private(name: str) -> bool:
    """Whether a name begins with one underscore."""
    return name.startswith("_") and not name.startswith("__")


def count_named_once(modules: dict[Path, ast.Module]) -> int:
    """How many private helpers are mentioned in one place only."""
    helpers: set[str] = set()
    mentions: Counter[str] = Counter()
    for node in nodes_of(modules):
        if isinstance(node, Function) and is_private(node.name):
            helpers.add(node.name)
        elif isinstance(node, ast.Attribute):
            mentions[node.attr] += 1
        elif isinstance(node, ast.Name):
            mentions[node.id] += 1
    return sum(mentions[name] == 1 for name in helpers)


def private_names(modules: dict[Path, ast.Module]) -> set[str]:
    """The private names that the package gives to something."""
    names: set[str] = set()
    for node in nodes_of(modules):
        if isinstance(node, Function | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.id if isinstance(node, ast.Name) else node.attr)
    return {name for name in names if is_private(name)}


def reaches(tests: dict[Path, ast.Module], private: set[str]) -> list[str]:
    """Where tests use private names of the package, also in the texts that patches take."""
    found = []
    for path, module in tests.items():
        for node in ast.walk(module):
            if isinstance(node, ast.Attribute) and node.attr in private:
                owner = node.value.id if isinstance(node.value, ast.Name) else ""
                is_reach = owner not in ("self", "cls")
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("redbeat"):
                is_reach = any(is_private(alias.name) for alias in node.names)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                is_reach = bool(re.fullmatch(r"redbeat(\.\w+)*\._[a-z]\w*", node.value))
            else:
                continue
            if is_reach:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def measure() -> list[Figure]:
    """All figures."""
    package = parse(PACKAGE)
    functions = [node for node in nodes_of(package) if isinstance(node, Function)]
    lengths = sorted(map(length, functions))
    classes = [node for node in nodes_of(package) if isinstance(node, ast.ClassDef)]
    longest = max(classes, key=span)
    scheduler = next(node for node in classes if node.name == "RedBeatScheduler")
    found = reaches(parse(TESTS), private_names(package))
    return [
        Figure("lines of the package", sum(map(lines_of, package))),
        Figure("files", len(package)),
        Figure("lines of schedulers.py", lines_of(FACADE), 900),
        Figure("lines of RedBeatScheduler", span(scheduler), 350),
        Figure("lines of the longest class", span(longest), 350, longest.name),
        Figure("functions", len(functions)),
        Figure("lines of a function: median", statistics.median(lengths)),
        Figure("lines of a function: 90th percentile", lengths[len(lengths) * 9 // 10]),
        Figure("lines of a function: most", lengths[-1]),
        Figure("private helpers named once", count_named_once(package), 150),
        Figure("reaches of tests for private names", len(found), 0, " ".join(found)),
    ]


if __name__ == "__main__":
    figures = measure()
    print(*figures, sep="\n")
    sys.exit(any(figure.is_past for figure in figures))
