"""Finds the optional folder of real videos and reference numbers; tests skip where it is absent."""

from __future__ import annotations

import os
from pathlib import Path

_BESIDE_THE_REPOSITORY = Path(__file__).resolve().parents[2] / "shared"


def shared_data() -> Path | None:
    """The folder named by ``ALPRO_SHARED``, else ``../shared`` beside the repository, else None."""
    folder = Path(os.environ.get("ALPRO_SHARED") or _BESIDE_THE_REPOSITORY)
    return folder if folder.is_dir() else None
