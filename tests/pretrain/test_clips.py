"""Clips with subtitles and captions: lists and LMDBs of them, sound and broken."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from alpro.errors import InputError
from alpro.tasks.pretraining.clips import Clip, read_clips, texts_of

lmdb = pytest.importorskip("lmdb")


def write_lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_texts(path: Path, texts: Mapping[str, bytes]) -> Path:
    with (
        lmdb.open(str(path), map_size=1 << 26) as environment,
        environment.begin(write=True) as transaction,
    ):
        for name, data in texts.items():
            transaction.put(name.encode(), data)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_lists_hold_ids_and_texts(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"clip_id": "Bv3.12.mp4", "video_id": "Bv3", "text": " now add flour "},
        {"video_id": "video7", "text": "a dog"},
    ]
    path = tmp_path / f"clips{suffix}"
    if suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        write_lines(path, *rows)
    table = read_clips(path)
    assert table.clips == [
        *(Clip("Bv3.12.mp4", ("now add flour",), ""), Clip("video7", ("a dog",), "")),
    ]
    assert (table.without_text, table.num_without_caption) == ([], 2)


def test_texts_and_captions_in_lmdbs(tmp_path: Path) -> None:
    texts = {"a.1.mp4": "née".encode(), "a.2.mp4": b" two", "b.1.mp4": b" \n", "c": b"not listed"}
    write_texts(tmp_path / "subtitles.db", texts)
    ids = ("a.1.mp4", "a.2.mp4", "b.1.mp4", "b.2.mp4")
    write_lines(tmp_path / "subtitles.db.jsonl", *({"clip_id": each} for each in ids))
    captions = write_texts(tmp_path / "captions", {"a.2.mp4": b"a bowl", "a.1.mp4": b""})
    table = read_clips(tmp_path / "subtitles.db", captions=captions)
    assert table.clips == [Clip("a.1.mp4", ("née",), ""), Clip("a.2.mp4", ("two",), "a bowl")]
    assert (table.without_text, table.num_without_caption) == (["b.1.mp4", "b.2.mp4"], 1)


def test_captions_in_a_list(tmp_path: Path) -> None:
    clips = write_lines(tmp_path / "a.jsonl", *({"clip_id": i, "text": "x"} for i in "abc"))
    rows = [{"image_id": "b", "caption": "a bowl"}, {"image_id": "a", "caption": "a box "}]
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps([*rows, rows[0]]))
    table = read_clips(clips, captions=captions)
    assert [clip.caption for clip in table.clips] == ["a box", "a bowl", ""]
    assert table.num_without_caption == 1
    captions.write_text(json.dumps([*rows, {"image_id": "b", "caption": "a table"}]))
    with pytest.raises(InputError, match=r"captions\.json: two captions of image_id 'b'; remove"):
        read_clips(clips, captions=captions)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("subtitle", ("add flour",)),
        ("caption", ("a bowl",)),
        ("caption_subtitle_concat", ("a bowl. with subtitle: add flour",)),
        ("caption_subtitle_random", ("a bowl", "add flour")),
    ],
)
def test_texts_of_a_clip(source: str, expected: tuple[str, ...]) -> None:
    assert texts_of("add flour", "a bowl", source) == expected
    assert texts_of("add flour", None, source) == ("add flour",)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"clip_id": "a"}, r"a\.jsonl:1: field 'text' is missing"),
        ({"clip_id": "a", "text": " "}, r"a\.jsonl:1: field 'text' is empty"),
        ({"text": "x"}, r"a\.jsonl:1: field 'clip_id' \(or video_id\) is missing"),
        ({"clip_id": 1.5, "text": "x"}, r"field 'clip_id' is 1\.5, but ids must be text"),
        ([1], r"a\.jsonl:1: a JSON object is expected"),
    ],
)
def test_broken_rows_are_named(tmp_path: Path, row: Any, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        read_clips(write_lines(tmp_path / "a.jsonl", row))


def test_broken_files_are_named(tmp_path: Path) -> None:
    def error_of(txt: Path, captions: Path | None = None) -> str:
        with pytest.raises(InputError) as raised:
            read_clips(txt, captions=captions)
        return str(raised.value)

    empty = write_lines(tmp_path / "empty.jsonl")
    assert error_of(empty) == f"{empty}: no clip in this file, which is empty"
    assert error_of(tmp_path / "db") == f"texts: {tmp_path}/db is no LMDB: there is no data.mdb"
    write_texts(tmp_path / "db", {"a": b"x", "b": b"\xff"})
    assert error_of(tmp_path / "db") == f"{tmp_path}/db.jsonl: there is no such file"
    write_lines(tmp_path / "db.jsonl", {"clip_id": "a"}, {"clip_id": "b"})
    assert error_of(tmp_path / "db") == f"{tmp_path}/db: the text of 'b' is not UTF-8"
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/data.mdb").write_bytes(bytes(9000))
    clips = write_lines(tmp_path / "clips.jsonl", {"clip_id": "a", "text": "x"})
    assert error_of(clips, tmp_path / "bad").startswith(f"texts: {tmp_path}/bad")


@pytest.mark.slow
def test_many_clips_take_little_more_than_their_texts(tmp_path: Path) -> None:
    path = tmp_path / "clips.jsonl"
    with path.open("w") as file:
        file.writelines(
            f'{{"clip_id": "v{i // 20}.{i % 20}.mp4", "text": "words about clip {i}"}}\n'
            for i in range(200_000)
        )
    tracemalloc.start()
    table = read_clips(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert table.clips.num_bytes < 1.6 * path.stat().st_size
    assert peak < 3 * path.stat().st_size
