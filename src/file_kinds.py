"""What a file is, as its first bytes tell, where text is expected."""

from __future__ import annotations

import codecs
from pathlib import Path

HEAD_BYTES = 1024  # enough to tell what a file is
_BYTE_ORDER_MARKS = (  # the longer ones first: UTF-32's begins as UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_FIRST_BYTES = (
    (b"\x1f\x8b", "is a gzip file; unpack it (gunzip)"),
    (b"\x28\xb5\x2f\xfd", "is a Zstandard file; unpack it (unzstd)"),
    (b"BZh9", "is a bzip2 file; unpack it (bunzip2)"),
    (b"\xfd7zXZ", "is an xz file; unpack it (unxz)"),
    (b"7z\xbc\xaf", "is a 7z archive; unpack it"),
    (b"Rar!", "is a RAR archive; unpack it"),
    (b"PK\3\4", "is a ZIP archive or an Excel workbook; unpack it, or save it as CSV UTF-8"),
    (b"\xd0\xcf\x11\xe0", "is an old Excel or Word file; save it as CSV UTF-8"),
    (b"PAR1", "is a Parquet table; let its name end in .parquet"),
    (b"%PDF", "is a PDF"),
    (b"SQLite format", "is an SQLite database; export its table as CSV"),
    (b"\x89HDF", "is an HDF5 file; export its table as CSV"),
    (b"version https://git-lfs", "is a Git LFS pointer; fetch the file itself with `git lfs pull`"),
)


def foreign_kind(path: Path, *, expected: bytes = b"") -> str | None:
    """Words that follow a path where its first bytes tell that the file is of another kind.

    Args:
        path: the file.
        expected: first bytes of the kind that was meant.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    return None if expected and head.startswith(expected) else _named_kind(head)


def why_not_text(head: bytes) -> str | None:
    """Words that follow a path where content is not the text that was meant.

    Args:
        head: the first bytes of the file.
    """
    if b"\0" in head and encoding_of(head) == "utf-8-sig":
        binary = "is not text but binary, or UTF-16 without a byte-order mark; convert it to UTF-8"
        return _named_kind(head) or binary
    return _named_kind(head)


def _named_kind(head: bytes) -> str | None:
    for first_bytes, reason in _FIRST_BYTES:
        if head.startswith(first_bytes):
            return reason
    is_page = head.lstrip().lower().startswith((b"<!doctype html", b"<html"))
    return "is a web page; download the file itself" if is_page else None


def encoding_of(head: bytes) -> str:
    """Encoding of a text that begins with these bytes, as its byte-order mark tells."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return encoding
    return "utf-8-sig"
