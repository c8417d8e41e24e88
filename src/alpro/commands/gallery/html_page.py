"""The frame of the pages that tools write: one file each, without network."""

from __future__ import annotations

from html import escape


def isolated(text: str) -> str:
    """Return text of any language as HTML, so that its direction stays its own."""
    return f'<bdi lang="">{escape(text)}</bdi>'


def html_page(main: str, *, title: str, style: str, script: str = "") -> str:
    """A page as HTML.

    Args:
        main: what it shows, as HTML.
        title: of the window, as text.
        style: CSS.
        script: JavaScript that runs in the end.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<main>
{main}
</main>
{f"<script>{script}</script>" if script else ""}
</body>
</html>
"""
