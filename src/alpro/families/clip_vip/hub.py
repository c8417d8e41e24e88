"""Names of models on the Hugging Face hub, resolved to local folders; never to the network."""

from __future__ import annotations

import re
from pathlib import Path

REMEDY = (
    "Name a file or a folder; or a model that Hugging Face's cache holds, which `hf download "
    "openai/clip-vit-base-patch32` fills where there is a network."
)


def resolve(name: str) -> Path:
    """Path of a model's files: as it is named, else the folder in Hugging Face's cache.

    A name that is neither is returned as a path, for an error with `REMEDY`.
    """
    path = Path(name)
    if path.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return path
