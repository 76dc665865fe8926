"""What the documentation shows is tried."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.pages import DIRECTIVES, LANGUAGES, PAGES, Page, PageError, document, fences
from support.servers import RedisServer, StartRedis


@pytest.fixture
def server(start_redis: StartRedis) -> RedisServer:
    """A server of the page's own."""
    return start_redis()


@pytest.fixture
def page(request: pytest.FixtureRequest, tmp_path: Path, server: RedisServer) -> Iterator[Page]:
    """The page that the test is parametrized with, in an empty directory."""
    directory = tmp_path / "page"
    directory.mkdir()
    page = Page(request.param, directory, server.port)
    yield page
    page.close()


@pytest.mark.parametrize("page", PAGES, indirect=True)
def test_every_block_of_a_page_does_what_the_page_says(page: Page) -> None:
    played = page.play()

    shown = [info for _, info in fences(page.name) if info in LANGUAGES]
    assert played >= len(shown)


@pytest.mark.parametrize("name", PAGES)
def test_every_block_is_in_a_language_that_is_tried(name: str) -> None:
    unknown = [
        f"{name}, line {line}: {info or 'no language'}"
        for line, info in fences(name)
        if info not in LANGUAGES and info not in DIRECTIVES
    ]

    assert not unknown


@pytest.mark.parametrize("name", PAGES)
def test_the_player_sees_every_block_that_a_reader_sees(name: str) -> None:
    seen = {example.line for example in document(name, None).examples()}

    shown = {line for line, info in fences(name) if info in LANGUAGES}
    assert shown <= seen


BAD_BLOCKS = {
    "a statement that raises": "```python\n1 / 0\n```",
    "a file that is no Python": "```python\n# wrong.py\nif\n```",
    "a session that shows something else": "```pycon\n>>> 1 + 1\n3\n```",
    "a command that fails": "```console\n$ false\n```",
    "a command that prints something else": "```console\n$ echo one\ntwo\n```",
    "a command that prints more": "```console\n$ printf 'one\\ntwo\\n'\none\n```",
    "a program that ends": "```console\n$ celery -A missing beat -l info\n```",
    "a package that is not known": "```console\n$ pip install no-such-package-at-all\n```",
    "a file that was not shown": "```console\n$ kubectl apply -f beat.yaml\n```",
    "an environment that is missing": "```console\n$ tox -e nowhere\n```",
    "a label that is missing": "```console\n$ tox -m nothing\n```",
    "YAML that does not parse": "```yaml\na: [1\n```",
    "a command that Redis does not know": "```redis\nHSAT a b c\n```",
    "JSON that does not parse": '```json\n{"a": }\n```',
    "a file without sections": "```ini\na = 1\n```",
    "a unit that systemd does not know": "```ini\n[Service]\nExecStart=\n```",
    "an image built of nothing": "```dockerfile\nFORM python\n```",
    "a hidden block that raises": "<!--- invisible-code-block: python\n1 / 0\n--->",
}


@pytest.mark.parametrize("text", BAD_BLOCKS.values(), ids=BAD_BLOCKS)
def test_a_block_that_does_not_do_what_it_says_is_found(
    text: str, tmp_path: Path, redis_server: RedisServer
) -> None:
    written = tmp_path / "bad.md"
    written.write_text(f"# A page\n\n{text}\n")
    (tmp_path / "page").mkdir()
    page = Page(str(written), tmp_path / "page", redis_server.port)

    try:
        with pytest.raises(PageError):
            page.play()
    finally:
        page.close()
