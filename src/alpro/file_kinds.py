"""Media types, and detection of unexpected file kinds by their first bytes."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import Literal, NamedTuple

Media = Literal["video", "image"]
"""Media of a data set."""

MODEL_WEIGHTS, MODEL_CONFIG = "model.safetensors", "config.json"  # of a model folder
FOLDER_WEIGHTS = (MODEL_WEIGHTS, f"{MODEL_WEIGHTS}.index.json", "pytorch_model.bin")
HEAD_BYTES = 1024  # enough to recognise any kind
_BYTE_ORDER_MARKS = (  # longer ones first: UTF-32's begins like UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class FileKind(NamedTuple):
    """A kind of file."""

    noun: str
    remedy: str = ""
    """Way to its content; empty where that depends on the expected kind."""

    def advice(self, otherwise: str = "") -> str:
        """Return the noun with its remedy, or another one if it has none."""
        remedy = self.remedy or otherwise
        return f"{self.noun}; {remedy}" if remedy else self.noun


_ZIP = FileKind("a ZIP archive or an Excel workbook", "unpack it, or save it as CSV UTF-8")
_LFS = FileKind("a Git LFS pointer", "fetch the file itself with `git lfs pull`")
_ANNEX = FileKind("a git-annex pointer", "fetch the file itself with `git annex get`")
_PAGE = FileKind(
    "a web page (HTML), as sites send to ask for a login or to confirm a download",
    "download the file itself, in a browser or with the site's own tool",
)
_KINDS = tuple(
    (re.compile(signature, re.DOTALL), kind)
    for signature, kind in (
        (rb"\x1f\x8b", FileKind("a gzip file", "unpack it (gzip -d)")),
        (rb"\x28\xb5\x2f\xfd", FileKind("a Zstandard file", "unpack it (zstd -d)")),
        (rb"BZh[1-9]1AY&SY", FileKind("a bzip2 file", "unpack it (bzip2 -d)")),
        (rb"\xfd7zXZ", FileKind("an xz file", "unpack it (xz -d)")),
        (rb"7z\xbc\xaf", FileKind("a 7z archive", "unpack it")),
        (rb"Rar!", FileKind("a RAR archive", "unpack it")),
        (rb".{257}ustar *\0", FileKind("a tar archive", "unpack it")),
        (rb"PK\x03\x04", _ZIP),
        (rb"\xd0\xcf\x11\xe0", FileKind("an old Excel or Word file")),
        (rb"PAR1", FileKind("a Parquet table", "let its name end in .parquet")),
        (rb"%PDF", FileKind("a PDF")),
        (rb"SQLite format", FileKind("an SQLite database")),
        (rb"\x89HDF", FileKind("an HDF5 file, as of pandas, Keras and TensorFlow")),
        (rb"GGUF.\0", FileKind("a GGUF file, of llama.cpp")),
        (rb"\x93NUMPY", FileKind("an array of NumPy (.npy)")),
        (rb"\x7fELF", FileKind("a program")),
        (rb"\xff\xd8\xff", FileKind("a picture (JPEG)")),
        (rb"\x89PNG\r\n\x1a\n", FileKind("a picture (PNG)")),
        (rb"BM.{4}\0{4}", FileKind("a picture (BMP)")),
        (rb"RIFF.{4}WEBP", FileKind("a picture (WebP)")),
        (rb"ID3[\x02-\x04]", FileKind("sound (MP3)")),
        (rb"fLaC\0", FileKind("sound (FLAC)")),
        (rb"RIFF.{4}WAVE", FileKind("sound (WAV)")),
        (rb"#EXTM3U", FileKind("a playlist (HLS), which names other files")),
        (rb"ffconcat version", FileKind("a playlist (ffconcat), which names other files")),
        (rb"version https://git-lfs", _LFS),
        (rb"/annex/objects", _ANNEX),
        (rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?<(?i:!doctype html|html|head|script)\b", _PAGE),
    )
)


def kind_of_content(head: bytes) -> FileKind | None:
    """Return the kind of a file by its first bytes; None if unknown."""
    return next((kind for signature, kind in _KINDS if signature.match(head)), None)


def foreign_kind(path: Path, *, expected: bytes = b"") -> str | None:
    """Describe a file without the expected first bytes, to follow its path; else None."""
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    return None if expected and head.startswith(expected) else _named_kind(head)


def why_not_text(head: bytes) -> str | None:
    """Describe a file whose first bytes are not text, to follow its path; else None."""
    reason = _named_kind(head)
    if reason is None and b"\0" in head and encoding_of(head) == "utf-8-sig":
        return "is not text but binary, or UTF-16 without a byte-order mark; convert it to UTF-8"
    return reason


def _named_kind(head: bytes) -> str | None:
    kind = kind_of_content(head)
    return kind and f"is {kind.advice('save what it holds as text, CSV or JSON in UTF-8')}"


def encoding_of(head: bytes) -> str:
    """Return the encoding of a text by the byte-order mark in its first bytes."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return encoding
    return "utf-8-sig"
