"""The HTML pages of the commands: a template beside this module, filled and written whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from turkish_clip.atomic import write_text


def fill_page(path: Path, template: str, **facts: Any) -> None:
    """Fills the template of that name, everything in it escaped; a fact that it misses is an error."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    write_text(path, templates.get_template(template).render(facts))
