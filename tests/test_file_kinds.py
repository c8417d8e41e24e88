"""What files are that were taken for text."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest

from alpro.file_kinds import foreign_kind
from alpro.user_files import UnreadableFileError, read_lines, read_text


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (gzip.compress(b"{}", mtime=0), "is a gzip file; unpack it"),
        (b"\x28\xb5\x2f\xfd\x04", "is a Zstandard file; unpack it"),
        (b"PK\3\4\x14", "is a ZIP archive or an Excel workbook"),
        (b"PAR1\x15", "is a Parquet table"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer; fetch the"),
        (b"\n <!doctype HTML><html>", "is a web page"),
        ("text".encode("utf-16-le"), "is not text but binary, or UTF-16 without a byte-order mark"),
        (b"\x00\x00\x00\x18ftypmp42", "is not text but binary"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", r"is a picture \(JPEG\); save what it holds as text"),
    ],
)
def test_content_that_is_no_text_is_named(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=f"a.jsonl: {told}"):
        read_text(path)
    with pytest.raises(UnreadableFileError, match=f"a.jsonl: {told}"):
        list(read_lines(path))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_texts_with_and_without_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a").write_text("ein Bär\n犬", encoding=encoding)
    assert list(read_lines(tmp_path / "a")) == ["ein Bär\n", "犬"]
    assert foreign_kind(tmp_path / "a") is None


def test_the_kind_that_was_meant_is_not_foreign(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a", "w") as archive:
        archive.writestr("x", "y")
    assert foreign_kind(tmp_path / "a", expected=b"PK") is None
    assert foreign_kind(tmp_path / "a") is not None
