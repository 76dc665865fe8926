"""The directive ``redbeat-settings``: every setting, from its table in the package."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from redbeat.beat.settings import SETTINGS
from redbeat.store.options import Setting


class SettingsDirective(SphinxDirective):
    """Shows name, type, default and meaning of each setting."""

    def run(self) -> list[nodes.Node]:
        """The settings as Sphinx's own `confval`, so that other pages can link to them."""
        return self.parse_text_to_nodes("\n".join(map(_shown, SETTINGS.values())))


def _shown(setting: Setting) -> str:
    return "\n".join(
        (
            f"```{{confval}} {setting.name}",
            f":type: {setting.type}",
            f":default: `{setting.default!r}`",
            "",
            setting.meaning,
            "```",
            "",
        )
    )


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive."""
    app.add_directive("redbeat-settings", SettingsDirective)
    return {"parallel_read_safe": True}
