"""The limits of tables that other programs have written."""

from __future__ import annotations

import pickle
import resource
import struct
from pathlib import Path
from typing import Any

import pytest

from alpro.datasets import tables
from alpro.datasets.annotations import CaptionRow, read_captions
from alpro.errors import InputError

pandas = pytest.importorskip("pandas")
pyarrow = pytest.importorskip("pyarrow")


def _parquet(path: Path, columns: list[tuple[str, Any]]) -> Path:
    from pyarrow import parquet

    names, values = zip(*columns, strict=True)
    parquet.write_table(pyarrow.table([pyarrow.array(one) for one in values], names=names), path)
    return path


def _repeated(text: str, count: int) -> Any:
    indices = pyarrow.array([0] * count, type=pyarrow.int32())
    return pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array([text]))


def _pickled(path: Path, columns: list[tuple[str, list[Any]]]) -> Path:
    names, values = zip(*columns, strict=True)
    frame = pandas.concat([pandas.Series(one, dtype=object) for one in values], axis=1)
    frame.set_axis(names, axis=1).to_pickle(path)
    return path


_WRITERS: dict[str, Any] = {"a.parquet": _parquet, "a.pkl": _pickled}
BOTH = pytest.mark.parametrize("name", _WRITERS)


@BOTH
def test_names_of_columns_are_as_in_csv(tmp_path: Path, name: str) -> None:
    path = _WRITERS[name](tmp_path / name, [("Caption", ["x"]), ("Video ID", ["v"])])
    assert read_captions(path) == [CaptionRow("x", "v")]


@BOTH
@pytest.mark.parametrize("twice", ["caption", "Caption"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, name: str, twice: str) -> None:
    columns = [("caption", ["x"]), (twice, ["y"]), ("video_id", ["v"])]
    path = _WRITERS[name](tmp_path / name, columns)
    with pytest.raises(InputError, match="2 columns are called 'caption' in the header"):
        read_captions(path)


@BOTH
def test_zero_characters_are_refused_with_their_row(tmp_path: Path, name: str) -> None:
    columns = [("caption", ["x", "y\0"]), ("video_id", ["v", "w"])]
    with pytest.raises(InputError, match="row 2: 'caption' holds .* zero character"):
        read_captions(_WRITERS[name](tmp_path / name, columns))


@BOTH
def test_endless_texts_are_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_MAX_CHARACTERS", 10_000)
    monkeypatch.setattr(tables, "_CHARACTERS_PER_BYTE", 2)
    monkeypatch.setattr(tables, "MAX_LINE_CHARACTERS", 500)
    text = "x" * 400
    columns = [("caption", [text] * 100), ("video_id", ["v"] * 100)]
    path = _WRITERS[name](tmp_path / name, columns)
    message = "unpacks to more than 10,000 characters and 2 times|'caption' has more than 500"
    with pytest.raises(InputError, match=message):
        read_captions(path)


def test_endless_rows_are_refused(tmp_path: Path) -> None:
    count = 1_100_000
    columns = [("caption", _repeated("x", count)), ("video_id", _repeated("v", count))]
    with pytest.raises(InputError, match=r"a\.parquet: 1,100,000 rows in [\d,]+ bytes; no annot"):
        read_captions(_parquet(tmp_path / "a.parquet", columns))


def test_memory_is_limited_while_parquet_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_MEMORY_BYTES", 600 << 20)
    columns = [("caption", _repeated("x" * 100_000, 20_000)), ("video_id", _repeated("v", 20_000))]
    path = _parquet(tmp_path / "a.parquet", columns)
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(InputError, match=r"a\.parquet: takes too much memory to unpack"):
        read_captions(path)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


@pytest.mark.parametrize(
    "code",
    [
        b"\x80\x04Nr" + struct.pack("<I", 2**31 - 1) + b".",  # room for two billion objects
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"abc.",  # a terabyte follows
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"abc.",
        b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"abc.",
    ],
    ids=["memo", "bytes", "bytearray", "frame"],
)
def test_memory_is_limited_while_pickles_are_read(tmp_path: Path, code: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(code)
    with pytest.raises(InputError, match=r"a\.pkl: takes too much memory to unpack"):
        read_captions(tmp_path / "a.pkl")


def test_odd_cells_are_quoted_in_short(tmp_path: Path) -> None:
    nested: list[Any] = ["x"]
    for _ in range(50):
        nested = [nested] * 10
    for cell in (nested, 10**6000, "x\ud800"):
        path = _pickled(tmp_path / "a.pkl", [("caption", [cell]), ("video_id", ["v"])])
        with pytest.raises(InputError, match=r"row 1: .*'caption' (must|holds half)") as caught:
            read_captions(path)
        assert len(str(caught.value)) < 3000


@BOTH
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"\x1f\x8b\x08", "is a gzip file"),
        (pickle.dumps([1])[:-2], "not a"),
        (b"", "not a"),
    ],
)
def test_other_files_are_recognised(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: {message}"):
        read_captions(tmp_path / name)
