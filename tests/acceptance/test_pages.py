"""What the documentation shows, done."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.pages import DIRECTIVES, LANGUAGES, PAGES, Page, document, fences
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
def test_no_block_is_of_a_language_that_nothing_plays(name: str) -> None:
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
