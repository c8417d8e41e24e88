"""Pages of commands: one HTML file each, without network, from a template."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

TEMPLATES = Path(__file__).with_name("templates")
QUALITY = 90  # of JPEG


def render_page(template: str, **values: object) -> str:
    """A page as HTML.

    Args:
        template: its name in the folder of templates.
        **values: that the template names; texts are escaped.
    """
    # A late import, for commands that may end without a page.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    return environment.get_template(template).render(values)


def _data_uri(picture: Image.Image) -> str:
    content = io.BytesIO()
    picture.save(content, format="JPEG", quality=QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
