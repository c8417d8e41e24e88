"""Files of weights, made up, and the messages that refuse them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from alpro.errors import InputError
from alpro.training.state_dicts import read_weights

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor(7)}


def saved(content: Any, *, legacy: bool = False, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy, **options)
    return buffer.getvalue()


def refused(path: Path) -> str:
    """The message that refuses a file, without its name."""
    with pytest.raises(InputError) as caught:
        read_weights(path)
    return str(caught.value).removeprefix(f"{path}: ")


def zipped(members: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()
