"""Names of models on the Hugging Face hub, resolved to local folders; never to the network."""

from __future__ import annotations

from pathlib import Path


def resolve(name: str) -> Path:
    """Path of a model's files: a local file or folder, or a folder in the Hugging Face cache.

    Where there is neither, the path as it was given, which `how_to_download` explains.
    """
    raise NotImplementedError(name)


def how_to_download(name: str) -> str:
    """Sentence on how to get a model of the hub that is not on this machine."""
    raise NotImplementedError(name)
