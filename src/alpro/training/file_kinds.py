"""Kinds of files that stand where weights should, by their content, and the remedy for each."""

from __future__ import annotations

import os
import re
import tarfile
import zipfile
from enum import Enum
from pathlib import Path
from typing import IO

from alpro.file_kinds import HEAD_BYTES, kind_of_content
from alpro.quoting import listed, shortened
from alpro.training.stored_tensors import DAMAGED, BrokenFileError

MAX_NAMED = 3  # members of an archive
MAX_READ = 1000  # members of a tar archive, whose names are all over the file
MAX_HEADER_BYTES = 100_000_000  # as in the library
ZIP_MAGIC = b"PK"
LEGACY_START = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # in torch.save's first pickle before 1.6
WEIGHT_ENDINGS = (".pt", ".pth", ".pyth", ".bin", ".ckpt", ".safetensors", ".pkl", ".tar")

_PLAIN_PICKLE = (
    "a plain pickle, not one of torch.save. Where it was written, save the weights with "
    "torch.save(model.state_dict(), 'weights.pt')"
)
_READ = "weights are read from files of PyTorch (.pt, .pth, .bin) and of safetensors"
_TENSORFLOW_NAME = re.compile(r"\.(data-\d+-of-\d+|index|meta)$|\.pb$|^checkpoint$")


class Format(Enum):
    """Formats of weights that are read."""

    ARCHIVE = "torch.save, since PyTorch 1.6"
    LEGACY = "torch.save, before PyTorch 1.6"
    SAFETENSORS = "safetensors"


def format_of(file: IO[bytes], path: Path) -> Format:
    """Return the format of a file of weights by its content.

    Raises:
        BrokenFileError: it is no such file; the message says what it is, and the remedy.
    """
    size = os.fstat(file.fileno()).st_size
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if size == 0:
        raise BrokenFileError("the file is empty")
    if head.startswith(ZIP_MAGIC):
        return _format_of_zip(file)
    if head[:1] == b"\x80" and LEGACY_START in head[:32]:
        return Format.LEGACY
    # Its first 8 bytes are the length of a header in JSON.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < MAX_HEADER_BYTES:
        return Format.SAFETENSORS
    if kind := _other_kind(head, file, path):
        raise _not_weights(kind)
    if path.suffix == ".safetensors":
        raise BrokenFileError(DAMAGED)
    raise _not_weights(f"something else; it begins with {head[:8]!r}. Download it again")


def _not_weights(kind: str) -> BrokenFileError:
    return BrokenFileError(f"not a file of PyTorch weights but {kind}")


def _other_kind(head: bytes, file: IO[bytes], path: Path) -> str | None:
    if head[257:262] == b"ustar":
        with tarfile.open(fileobj=file, mode="r:") as archive:
            names = [member.name for _, member in zip(range(MAX_READ), archive, strict=False)]
        return f"a tar archive that holds {_named(names)}. Unpack it and name the file in it"
    if _TENSORFLOW_NAME.search(path.name):
        return f"a part of a checkpoint of TensorFlow; {_READ}"
    if kind := kind_of_content(head):
        return kind.advice(_READ)
    if head.startswith(b"\x08") and (b"onnx" in head[:300] or b"pytorch" in head[:300]):
        return f"an ONNX model; {_READ}"
    if head[4:8] == b"ftyp":
        return "a video (MP4)"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return _PLAIN_PICKLE
    if text := _text_of(head):
        return _kind_of_text(text)
    if not any(head):
        return "zeros, as of a download that was broken off. Download it again"
    return None


def _format_of_zip(file: IO[bytes]) -> Format:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    file.seek(0)
    root = next(iter(names), "").split("/")[0]
    if f"{root}/constants.pkl" in names:
        raise _not_weights(
            "a TorchScript archive (torch.jit.save), as CLIP's. Save its weights alone: "
            "torch.save(torch.jit.load('FILE', map_location='cpu').state_dict(), 'weights.pt')"
        )
    if f"{root}/data.pkl" in names:
        return Format.ARCHIVE
    if names and all(name.endswith(".npy") for name in names):
        raise _not_weights(f"an archive of NumPy (.npz); {_READ}")
    held = _named(names)
    raise _not_weights(f"a ZIP archive that holds {held}. Unpack it and name the file in it")


def _named(names: list[str]) -> str:
    """A few members, weights first."""
    few = sorted(names, key=lambda name: not name.endswith(WEIGHT_ENDINGS))[: MAX_NAMED + 1]
    return listed([shortened(name) for name in few], most=MAX_NAMED) or "nothing"


def _text_of(head: bytes) -> str:
    """The beginning of a file as text; empty if it is none."""
    text = head.decode("utf-8", errors="ignore")
    is_text = len(text.encode()) >= len(head) - 3  # the last character may be cut off
    return text if is_text and all(c.isprintable() or c in "\r\n\t\f\ufeff" for c in text) else ""


def _kind_of_text(text: str) -> str:
    start, shown = text.lstrip("\ufeff \r\n\t"), shortened(" ".join(text.split()))
    if start.startswith("<"):
        return f"an XML text, as servers send for an error: {shown!r}. Download it again"
    if start.startswith(("{", "[")):
        return f"a JSON text: {shown!r}. Name the file that holds the weights"
    return f"a text: {shown!r}. Download it again"
