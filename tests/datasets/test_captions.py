from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from alpro.datasets import tables
from alpro.errors import InputError
from alpro.tasks.pretraining.annotations import (
    CaptionedItem,
    read_captioned,
    read_captioned_images,
    read_captioned_videos,
)

_ROWS = [
    {"video_id": 1023, "text": "  a dog runs ", "txt_len": 3},
    {"video_id": 7, "text": "too long, it says", "txt_len": 80},
    {"video_id": 8, "text": "ein Bär", "txt_len": 79},
    {"video_id": 8, "text": "another caption", "txt_len": 2},
]
_VIDEOS = [
    CaptionedItem("1023", ("a dog runs",), "video"),
    CaptionedItem("8", ("ein Bär",), "video"),
    CaptionedItem("8", ("another caption",), "video"),
]


def _table(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format that the path's ending names."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rows)
    write = {
        ".csv": lambda: frame.to_csv(path, index=False),
        ".jsonl": lambda: frame.to_json(path, orient="records", lines=True, force_ascii=False),
        ".parquet": lambda: frame.to_parquet(path),
        ".pkl": lambda: frame.to_pickle(path),
    }
    write[path.suffix]()
    return path


def _lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


_FORMATS = [".csv", ".jsonl", ".parquet", ".pkl"]


@pytest.mark.parametrize("suffix", _FORMATS)
def test_all_formats_of_videos_say_the_same(tmp_path: Path, suffix: str) -> None:
    table = read_captioned(_table(tmp_path / f"train{suffix}", _ROWS), "video")
    assert table.items == _VIDEOS
    assert table.num_left_out == 1


@pytest.mark.parametrize("suffix", _FORMATS)
@pytest.mark.parametrize("text", ["caption", "name"])
@pytest.mark.parametrize("video", ["clip_name", "videoid"])
def test_columns_may_have_other_names(tmp_path: Path, suffix: str, text: str, video: str) -> None:
    rows = [{"page_dir": "x", video: "v1", text: "a dog"}, {video: "v2", text: "a cat"}]
    table = read_captioned_videos(_table(tmp_path / f"a{suffix}", rows))
    assert table.items == [
        CaptionedItem("v1", ("a dog",), "video"),
        CaptionedItem("v2", ("a cat",), "video"),
    ]
    assert table.num_left_out == 0


def test_the_first_name_of_a_column_takes_precedence(tmp_path: Path) -> None:
    row = {"name": "n", "caption": "c", "text": "t", "clip_name": "k", "video_id": "v"}
    assert read_captioned_videos(_lines(tmp_path / "a.jsonl", row)).items == [
        CaptionedItem("v", ("t",), "video")
    ]


@pytest.mark.parametrize("suffix", _FORMATS)
@pytest.mark.parametrize(("column", "other"), [("text", "name"), ("video_id", "videoid")])
def test_another_column_does_not_replace_an_empty_one(
    tmp_path: Path, suffix: str, column: str, other: str
) -> None:
    full = {"video_id": "v", "text": "a dog", other: "file_0001.mov"}
    path = _table(tmp_path / f"a{suffix}", [full, {**full, column: None}])
    place = {".csv": ":3", ".jsonl": ":2"}.get(suffix, ": row 2")
    with pytest.raises(
        InputError, match=rf"a\{suffix}{place}: field '{column}' is (missing|empty)"
    ):
        read_captioned_videos(path)


def test_rows_of_json_lines_may_differ_in_their_names(tmp_path: Path) -> None:
    rows = {"text": "a", "video_id": "1"}, {"caption": "b", "videoid": 2}
    assert read_captioned_videos(_lines(tmp_path / "a.jsonl", *rows)).items == [
        CaptionedItem("1", ("a",), "video"),
        CaptionedItem("2", ("b",), "video"),
    ]


@pytest.mark.parametrize("suffix", [".parquet", ".pkl"])
def test_numbers_as_ids_of_which_one_is_missing(tmp_path: Path, suffix: str) -> None:
    rows: list[dict[str, Any]] = [{"video_id": 1, "text": "x"}, {"video_id": None, "text": "y"}]
    path = _table(tmp_path / f"a{suffix}", rows)
    expected = (
        r"row 1: field 'video_id' is 1\.0, but ids must be .* whole numbers; is one missing\?"
    )
    with pytest.raises(InputError, match=expected):
        read_captioned_videos(path)


@pytest.mark.parametrize("suffix", _FORMATS)
@pytest.mark.parametrize("text", [None, "  "])
def test_a_row_without_text_is_named(tmp_path: Path, suffix: str, text: str | None) -> None:
    rows: list[dict[str, Any]] = [{"video_id": 1, "text": "a dog"}, {"video_id": 2, "text": text}]
    path = _table(tmp_path / f"a{suffix}", rows)
    place = {".csv": ":3", ".jsonl": ":2"}.get(suffix, ": row 2")
    with pytest.raises(InputError, match=rf"a\{suffix}{place}: field 'text' is (missing|empty)"):
        read_captioned_videos(path)


def test_parquet_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_ROWS_AT_A_TIME", 2)
    rows: list[dict[str, Any]] = [{"video_id": i, "text": f"text {i}"} for i in range(5)]
    table = read_captioned_videos(_table(tmp_path / "a.parquet", rows))
    assert [(item.video_id, *item.captions) for item in table.items] == [
        (str(i), f"text {i}") for i in range(5)
    ]
    rows[3]["text"] = " "
    with pytest.raises(InputError, match="row 4: field 'text' is empty"):
        read_captioned_videos(_table(tmp_path / "a.parquet", rows))


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".pkl"])
def test_a_table_without_the_columns_says_which_it_has(tmp_path: Path, suffix: str) -> None:
    path = _table(tmp_path / f"a{suffix}", [{"video_id": 1, "txt_len": 3}])
    with pytest.raises(InputError, match=r"no column 'text' \(or caption or name\) in the header"):
        read_captioned_videos(path)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"video_id": 1.5, "text": "x"}, "'video_id' is 1.5, but ids must be text or whole"),
        ({"text": None, "video_id": "v", "name": "1.mov"}, "'text' is missing"),
        ({"text": "x", "video_id": None, "videoid": "v"}, "'video_id' is missing"),
        ({"video_id": True, "text": "x"}, "'video_id' must be text, not bool"),
        ({"text": "x"}, r"'video_id' \(or clip_name or videoid or video\) is"),
        ({"video_id": "v", "text": 3}, "'text' must be text, not int"),
        ({"video_id": "v", "text": "x", "txt_len": "ten"}, "'txt_len' must be a number, not 'ten'"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, row: dict[str, Any], expected: str) -> None:
    path = _lines(tmp_path / "a.jsonl", {"video_id": "v", "text": "x"}, row)
    with pytest.raises(InputError, match=f"a.jsonl:2: .*{expected}"):
        read_captioned_videos(path)


def test_a_table_of_long_texts_alone_is_an_error(tmp_path: Path) -> None:
    path = _lines(tmp_path / "a.jsonl", *[{"video_id": "v", "text": "x", "txt_len": 90}] * 3)
    with pytest.raises(InputError, match=r"a.jsonl: txt_len is above 79 in all 3 rows; give"):
        read_captioned_videos(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"end in .*\.csv, .*\.parquet, \.pkl, not in '\.txt'"):
        read_captioned_videos(tmp_path / "a.txt")
    with pytest.raises(InputError, match=r"end in \.json, \.jsonl, not in '\.csv'"):
        read_captioned_images(tmp_path / "a.csv")
    with pytest.raises(InputError, match=r"absent\.pkl: there is no such file"):
        read_captioned_videos(tmp_path / "absent.pkl")


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_text("text,video_id\n")
    with pytest.raises(InputError, match=r"a\.parquet: not a Parquet file"):
        read_captioned_videos(tmp_path / "a.parquet")


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"a\.parquet: .* needs pyarrow.*`pip install pyarrow`"):
        read_captioned_videos(tmp_path / "a.parquet")


_ENTRIES = [
    {"image": "cc3m/1.jpg", "caption": " a dog "},
    {"image": "cc3m/2.jpg", "caption": ["a cat", "a tabby cat"], "url": 3},
]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_image_lists_of_all_forms_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".json":
        path.write_text(json.dumps(_ENTRIES, indent=1))
    else:
        _lines(path, *_ENTRIES)
    table = read_captioned(path, "image")
    assert table.items == [
        CaptionedItem("cc3m/1.jpg", ("a dog",), "image"),
        CaptionedItem("cc3m/2.jpg", ("a cat", "a tabby cat"), "image"),
    ]
    assert table.num_left_out == 0


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"image": "2.jpg"}, "entry 2: field 'caption' is missing"),
        ({"image": "2.jpg", "caption": []}, "entry 2: field 'caption' must be text, or a list"),
        (
            {"image": "2.jpg", "caption": ["x", " "]},
            "entry 2: field 'caption' must be .* of which is empty",
        ),
        ({"image": "2.jpg", "caption": ["x", 3]}, "entry 2: field 'caption' must be text, or"),
        ({"image": "2.jpg", "caption": 3}, "entry 2: field 'caption' must be text, not int"),
        ({"caption": "x"}, "entry 2: field 'image' is missing"),
        (["2.jpg", "x"], "entry 2: a JSON object is expected, not list"),
    ],
)
def test_bad_images_are_named(tmp_path: Path, entry: Any, expected: str) -> None:
    path = tmp_path / "cc3m.json"
    path.write_text(json.dumps([_ENTRIES[0], entry]))
    with pytest.raises(InputError, match=rf"cc3m\.json: {expected}"):
        read_captioned_images(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"image": "1.jpg"}', "a JSON list is expected, not dict"),
        ('[{"image": "1.jpg",\n]', r"not JSON \(.* at line 2, column"),
        ("[]", "no image in this file"),
    ],
)
def test_files_that_are_no_list_of_images(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=rf"a\.json: {expected}"):
        read_captioned_images(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("media", "name", "text", "expected"),
    [
        ("image", "a.csv", "", r"of images end in \.json, \.jsonl, not in '\.csv'.*media to video"),
        ("video", "a.json", '[{"image": "1.jpg", "caption": "x"}]', "set of images, set its media"),
        ("video", "a.jsonl", '{"image": "1.jpg", "caption": "x"}', "set of images, set its media"),
        ("video", "a.jsonl", '{"image": "1.jpg"}', r"fields 'text' \(or .* and .*media to image"),
        ("image", "a.jsonl", '{"video_id": "1", "text": "x"}', "set of videos, set its media"),
        ("image", "a.jsonl", '{"video_id": "1", "caption": "x"}', "'image' is.*media to video"),
    ],
)
def test_files_of_the_other_media_are_named(
    tmp_path: Path, media: Literal["video", "image"], name: str, text: str, expected: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=expected):
        read_captioned(path, media)
