"""The reference is complete: it is compared with the code that it describes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.version import Version

from redbeat import errors
from redbeat.beat.settings import SETTINGS
from redbeat.schedulers import ADD_ENTRY_ERROR

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "redbeat").rglob("*.py"))
PAGES = ["README.md", *(str(page.relative_to(ROOT)) for page in sorted(ROOT.glob("docs/**/*.md")))]
LEVELS = {"warning", "error", "critical", "exception"}
NAMED_TEXTS = {"ADD_ENTRY_ERROR": ADD_ENTRY_ERROR}

#: Errors whose messages are all listed; those of invalid values are too many.
LISTED_ERRORS = {
    "BeatInitError",
    "EntryError",
    "LockNotOwnedError",
    "RedBeatKeyExpiryError",
    "SettingError",
    "UnsupportedServerError",
}

#: A shorter fragment, such as `beat: ` or a bracket, identifies nothing.
SHORTEST = 8

PLACEHOLDER = re.compile(r"%[-+.\d]*[a-z]")


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def logged_lines() -> Iterator[str]:
    """The texts that are logged at warning or above, with their placeholders."""
    for source in SOURCES:
        for call in calls(ast.parse(source.read_text())):
            function = call.func
            if not isinstance(function, ast.Attribute) or function.attr not in LEVELS:
                continue
            if isinstance(function.value, ast.Attribute):
                # `Repeats.error` takes first what the line is about, and its cause.
                yield from _constant_texts(call.args)
                continue
            if not isinstance(function.value, ast.Name) or function.value.id != "logger":
                continue
            text = call.args[0]
            if isinstance(text, ast.Constant):
                yield str(text.value)
            elif isinstance(text, ast.Name) and text.id in NAMED_TEXTS:
                yield NAMED_TEXTS[text.id]
            else:
                yield f"{source.name}:{call.lineno}: a text that this test cannot read"


def _constant_texts(arguments: list[ast.expr]) -> Iterator[str]:
    for each in arguments:
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.value


def raised_messages() -> Iterator[str]:
    """The messages of our own errors and warnings, with a placeholder for each value."""
    for source in SOURCES:
        tree = ast.parse(source.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "message":
                yield _template(node.value)
        for call in calls(tree):
            if isinstance(call.func, ast.Name) and call.func.id in LISTED_ERRORS and call.args:
                yield _template(call.args[0])


def _template(text: ast.expr) -> str:
    if isinstance(text, ast.JoinedStr):
        return "".join(map(_template, text.values))
    return str(text.value) if isinstance(text, ast.Constant) else "%s"


def fragments(text: str) -> list[str]:
    """The parts of a text that never change."""
    pieces = (_plain(piece) for piece in PLACEHOLDER.split(text))
    return [piece for piece in pieces if len(piece) >= SHORTEST]


@pytest.fixture(scope="module")
def page() -> str:
    return _plain((ROOT / "docs/reference/errors.md").read_text())


def _plain(text: str) -> str:
    """The text in one line, without backticks."""
    return " ".join(text.replace("`", "").split())


@pytest.mark.parametrize("text", sorted({*logged_lines(), *raised_messages()}))
def test_every_logged_line_and_every_message_is_listed(page: str, text: str) -> None:
    pattern = ".{0,300}?".join(map(re.escape, fragments(text)))

    assert re.search(pattern, page), f"docs/reference/errors.md does not list {text!r}"


@pytest.mark.parametrize(
    "name", [name for name, value in vars(errors).items() if isinstance(value, type)]
)
def test_every_class_of_error_is_listed(page: str, name: str) -> None:
    is_ours = getattr(errors, name).__module__ == errors.__name__

    assert name in page or not is_ours


def test_the_readme_lists_every_setting_with_its_default() -> None:
    rows = dict(
        re.findall(r"^\| `(redbeat_\w+)` \| (.+?) \|", (ROOT / "README.md").read_text(), re.M)
    )

    assert set(rows) == set(SETTINGS)
    for setting in SETTINGS.values():
        if isinstance(setting.default, (int, float)):
            assert rows[setting.name] == str(setting.default)


def test_the_layout_names_every_module() -> None:
    layout = (ROOT / "docs/explanation/layout.md").read_text()

    rooms = {f"{source.parent.name}/" for source in SOURCES if source.name == "__init__.py"}
    modules = {source.name for source in SOURCES} - {"__init__.py"}
    unnamed = {name for name in (rooms | modules) if f"`{name}`" not in layout}
    assert unnamed <= {"redbeat/"}


@pytest.mark.parametrize("page", PAGES)
def test_a_command_that_installs_the_package_installs_this_version(page: str) -> None:
    """While it is a pre-release, that takes `--pre`, and the page says so."""
    text = (ROOT / page).read_text()
    commands = re.findall(r"pip install\b.*\bcelery-redbeat\b(?!<).*", text)
    (version,) = re.findall(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    is_prerelease = Version(version).is_prerelease

    assert all(("--pre " in command) == is_prerelease for command in commands)
    assert not commands or not is_prerelease or "ithout --pre, pip" in _plain(text)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_to_a_file_leads_to_one(page: str) -> None:
    links = re.findall(r"\]\(([^):#]+)(?:#[^)]*)?\)", (ROOT / page).read_text())

    broken = [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    assert not broken
