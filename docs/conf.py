"""How Sphinx builds the documentation: `tox -e docs`."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

from pygments.lexers import BashLexer
from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "celery-redbeat"
copyright = "the authors of celery-redbeat"
version = release = version_of("celery-redbeat")

extensions = [
    "myst_parser",
    "redbeat_settings",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinxcontrib.mermaid",
]
exclude_patterns = ["_build", "_figures.md", "demo"]
templates_path = []

html_theme = "furo"
html_title = f"celery-redbeat {release}"

# Options and quotes are to be copied as they are typed.
smartquotes = False

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
# Drawn in the reader's browser, by one version of the script.
mermaid_version = "11.12.0"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
# Celery's classes have attributes and docstrings of their own, which its documentation shows.
autodoc_inherit_docstrings = False

# The second place is what there is without a network; see `_intersphinx/refresh.py`.
intersphinx_mapping = {
    name: (url, (None, str(HERE / "_intersphinx" / f"{name}.inv")))
    for name, url in {
        "celery": "https://docs.celeryq.dev/en/stable/",
        "dateutil": "https://dateutil.readthedocs.io/en/stable/",
        "kombu": "https://docs.celeryq.dev/projects/kombu/en/stable/",
        "python": "https://docs.python.org/3/",
        "redis": "https://redis.readthedocs.io/en/stable/",
    }.items()
}
intersphinx_timeout = 5

# Short names in annotations, of what the inventories know by its full name; and what is internal.
nitpick_ignore = [
    ("py:class", "datetime"),
    ("py:class", "tzinfo"),
    ("py:class", "click.exceptions.ClickException"),
    ("py:class", "redbeat.beat.batch.Claim"),
    ("py:class", "redbeat.beat.rest.Outlook"),
    ("py:class", "redbeat.store.keys.OwnKeys"),
]


def setup(app: Sphinx) -> None:
    """Colour what is typed into `redis-cli` as what is typed into a shell: it is quoted alike."""
    app.add_lexer("redis", BashLexer)
    app.connect("sphinx-click-process-options", _escape_asterisks)


def _escape_asterisks(app: Sphinx, ctx: object, lines: list[str]) -> None:
    """The help of a command is plain text, where an asterisk is one."""
    lines[:] = [line.replace("*", r"\*") for line in lines]
