from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from alpro.datasets.annotations import (
    CAPTIONS,
    CaptionRow,
    parsed_rows,
    read_captions,
    sha256_of,
)
from alpro.datasets.row_parsing import RowError
from alpro.errors import InputError


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_jsonl_rows_in_file_order_without_blank_lines_and_extra_keys(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "train.jsonl",
        '{"caption": "a dog", "clip_name": "v1", "retrieval_key": "ret0"}\n\n'
        '{"clip_name": "v2", "caption": "ein Bär"}\n   \n',
    )
    assert read_captions(path) == [CaptionRow("a dog", "v1"), CaptionRow("ein Bär", "v2")]


def test_jsonl_rows_may_name_the_video_as_csv_does(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "a.jsonl",
        '{"caption": "x", "video_id": "v1"}\n'
        '{"caption": "y", "video_id": "17", "clip_name": "v2"}\n',
    )
    assert read_captions(path) == [CaptionRow("x", "v1"), CaptionRow("y", "v2")]


def test_jsonl_rows_may_have_spaces_around(tmp_path: Path) -> None:
    row = '{"caption": "x", "clip_name": "v"}'
    path = _write(tmp_path / "a.jsonl", f"  {row}\n{row} \t\r\n\n\t{row}\r\n{row}")
    assert read_captions(path) == [CaptionRow("x", "v")] * 4


def test_rows_are_parsed_one_after_another(tmp_path: Path) -> None:
    """A file is not read to its end before the first row is there."""
    path = _write(tmp_path / "a.jsonl", '{"text": "x", "video_id": "v"}\nno row\n')
    rows = parsed_rows(path, CAPTIONS)
    assert next(rows) == CaptionRow("x", "v")
    with pytest.raises(InputError, match=r"a\.jsonl:2: not JSON"):
        next(rows)


def test_rows_after_a_wrong_one_can_be_read_too(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "a.jsonl",
        '{"text": "x", "video_id": "v"}\nno row\n\n{"text": ["y", "z"], "video_id": "w"}\n'
        '{"text": [], "video_id": "w"}\n',
    )
    errors: list[RowError] = []
    rows = list(parsed_rows(path, CAPTIONS, refuse=errors.append))
    assert rows == [CaptionRow("x", "v"), CaptionRow("y", "w"), CaptionRow("z", "w")]
    assert [error.number for error in errors] == [2, 5]


@pytest.mark.parametrize("video_column", ["clip_name", "video_id"])
def test_rows_of_csv_are_read(tmp_path: Path, video_column: str) -> None:
    path = _write(
        tmp_path / "a.csv", f'{video_column},n,caption\nv1,7,"a dog, running"\n\n  \nv2,8,x\n'
    )
    assert read_captions(path) == [CaptionRow("a dog, running", "v1"), CaptionRow("x", "v2")]


def test_errors_of_rows_name_row_and_remedy(tmp_path: Path) -> None:
    good = '{"caption": "ein Bär \\ud83d\\udc3b", "clip_name": "v"}\n'
    rows = {'{"caption": " ", "clip_name": "v"}': True, '{"caption": ["the room is empty"]}': False}
    for row, is_empty in rows.items():
        path = _write(tmp_path / "a.jsonl", f"\n{good}{row}\n")
        with pytest.raises(RowError) as caught:
            read_captions(path)
        error = pickle.loads(pickle.dumps(caught.value))
        assert (error.number, error.is_empty) == (3, is_empty)
        assert str(error) == f"{path}:3: {error.reason}" == str(caught.value)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("caption,clip_name\nx,v1\n", encoding="utf-8-sig")
    assert read_captions(path) == [CaptionRow("x", "v1")]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "a.jsonl",
            '{"caption": "x", "clip_name": "v"}\n{"caption": \n',
            ["a.jsonl:2", "not JSON"],
        ),
        (
            "a.jsonl",
            '{"caption": "x", "clip_name": "v"} {"caption": "y", "clip_name": "w"}\n',
            ["a.jsonl:1: not JSON (Extra data at column 36)"],
        ),
        ("a.jsonl", "nothing\n", ["a.jsonl:1: not JSON (Expecting value at column 1)"]),
        (
            "a.jsonl",
            '{"caption": "x"}\n',
            ["a.jsonl:1", "'clip_name' (or clip_id or video_id or videoid or video) is missing"],
        ),
        ("a.jsonl", '{"caption": 3, "clip_name": "v"}\n', ["a.jsonl:1", "'caption'", "int", "3"]),
        ("a.jsonl", '{"caption": "x", "clip_name": " "}\n', ["a.jsonl:1", "'clip_name' is empty"]),
        ("a.jsonl", '["x", "v"]\n', ["a.jsonl:1", "object", "list"]),
        ("a.jsonl", "\n\n", ["a.jsonl", "no caption"]),
        ("a.csv", "", ["a.csv: no caption in this file, which is empty"]),
        ("a.csv", "\n\n", ["a.csv: no caption in this file"]),
        ("a.jsonl", "", ["a.jsonl: no caption in this file, which is empty"]),
        (
            "a.jsonl",
            '{"caption": "a \\ud83d", "clip_name": "v"}',
            ["a.jsonl:1: half a character (a lone surrogate) after"],
        ),
        ("a.csv", "title,clip_name\nx,v\n", ["a.csv:1", "'caption'", "title"]),
        (
            "a.jsonl",
            '{"title": "x"}\n',
            [
                "fields 'caption' (or text or name) and 'clip_name' (or clip_id or video_id or "
                "videoid or "
                "video) are missing (fields found: ['title']); rename 'title' to 'caption' if"
            ],
        ),
        (
            "a.csv",
            "caption,file\nx,v\n",
            [
                "a.csv:1: no column 'clip_name' (or clip_id or video_id or videoid or video) in ",
                "rename 'file' to 'clip_name' if it is that",
            ],
        ),
        ("a.csv", "caption,video_id\nx, \n", ["a.csv:2", "'video_id' is empty"]),
        ("a.jsonl", '{"caption": " ", "clip_name": "v"}\n', ["a.jsonl:1", "'caption' is empty"]),
        (
            "a.csv",
            "clip_name,caption\nv,a man, running\n",
            ["a.csv:2: 3 fields, but the header names 2; put captions that contain commas in quot"],
        ),
        (
            "a.csv",
            "caption,clip_name\nx,v\ny\n",
            ["a.csv:3: 1 field, but the header names 2; separate the fields"],
        ),
        ("a.csv", "caption,clip_name\nx,v\n,w\n", ["a.csv:3", "'caption' is empty"]),
        ("a.csv", 'caption,clip_name\n" ",w\n', ["a.csv:2", "'caption' is empty"]),
        ("a.csv", "caption,clip_name\n", ["a.csv", "no caption"]),
        ("a.txt", "x", ["a.txt", ".jsonl, .csv"]),
    ],
)
def test_bad_files_are_named_with_their_line(
    tmp_path: Path, name: str, text: str, expected: list[str]
) -> None:
    path = _write(tmp_path / name, text)
    with pytest.raises(InputError) as caught:
        read_captions(path)
    for part in expected:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.csv", "video_id,text\nv,x\n"), ("a.jsonl", '{"video_id": "v", "text": "x"}\n')],
)
def test_annotations_of_pretraining_are_captions_too(tmp_path: Path, name: str, text: str) -> None:
    assert read_captions(_write(tmp_path / name, text)) == [CaptionRow("x", "v")]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.jsonl: there is no such file"):
        read_captions(tmp_path / "absent.jsonl")


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"caption": "Bär", "clip_name": "v"}\n'.encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        read_captions(path)


def test_sha256_of_known_text(tmp_path: Path) -> None:
    path = _write(tmp_path / "a", "abc")
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_file_of_another_ending_is_named_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "captions.gz"
    path.write_bytes(b"\x1f\x8b\x08\x00")
    with pytest.raises(InputError, match=r"a gzip file; unpack it .*; annotation files end in"):
        read_captions(path)


_LISTS = (
    '{"text": ["a dog ", "it runs"], "clip_id": "v/1", "video_id": "v", "num_frame": 12}\n'
    '{"text": "a cat", "clip_id": "w", "num_frame": null}\n'
)


def test_lists_of_texts_are_pairs_or_one_row_to_draw_from_or_a_paragraph(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jsonl", _LISTS)
    assert read_captions(path) == [
        *(CaptionRow("a dog", "v/1", 12), CaptionRow("it runs", "v/1", 12)),
        CaptionRow("a cat", "w"),
    ]
    assert read_captions(path, text_lists="draw") == [
        *(CaptionRow("a dog", "v/1", 12, ("it runs",)), CaptionRow("a cat", "w")),
    ]
    assert read_captions(path, text_lists="paragraph") == [
        *(CaptionRow("a dog it runs", "v/1", 12), CaptionRow("a cat", "w")),
    ]
    path = _write(tmp_path / "b.jsonl", '{"text": ["x", " "], "clip_id": "v"}\n')
    for text_lists in ("pairs", "draw", "paragraph"):
        with pytest.raises(
            InputError, match=r"b\.jsonl:1: field 'text' must be text, or a list of"
        ):
            read_captions(path, text_lists=text_lists)


def test_numbers_of_frames_are_whole_and_positive(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", "text,clip_id,num_frame\nx,v,007\ny,w,\nz,u,8.0\n")
    assert read_captions(path).column("num_frames") == [7, 0, 8]
    for wrong in ("0", "-1", "1.5", "many", "true", "[3]", '"1e3"', "12345678901"):
        text = wrong if wrong[0] in '-01t["' else f'"{wrong}"'
        row = f'{{"text": "x", "clip_id": "v", "num_frame": {text}}}\n'
        path = _write(tmp_path / "a.jsonl", row)
        with pytest.raises(InputError, match=r"jsonl:1: field 'num_frame' must be a whole number"):
            read_captions(path)
