"""Files that come with the package: configs of ``config_release``, tokenizers of ``ext``.

In a checkout they lie in its root, in an installed wheel inside the package.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDERS = ("config_release", "ext")
_PACKAGE = Path(__file__).parent
_ROOTS = (_PACKAGE / "resources", _PACKAGE.parents[1])


def with_resources(path: str) -> str:
    """Complete the path of a file that comes with the package.

    Args:
        path: as a config or flag has it; one that exists, and any that does not begin with one of
            `FOLDERS`, is returned as it is.
    """
    first = path.removeprefix("./").partition("/")[0]
    if first not in FOLDERS or os.path.lexists(path):
        return path
    places = (root / path for root in _ROOTS)
    return next((str(place) for place in places if place.exists()), path)
