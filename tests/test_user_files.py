"""Files that users name: refused with one sentence, and JSON within limits."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from alpro import user_files
from alpro.user_files import (
    JsonError,
    UnreadableFileError,
    parse_json,
    parse_json_line,
    read_json,
    read_lines,
    read_text,
    why_unreadable,
)

PARSERS = pytest.mark.parametrize("parse", [parse_json, parse_json_line])


@PARSERS
@pytest.mark.parametrize(
    "value",
    [
        {"caption": "a dog: it runs", "clip_name": "video7"},
        {"a": {"b": [1, 2.5, None, True]}, "c": "\\u0000 and \\ud800 are only spelled here"},
        [],
        "text",
        10**39,
        {"emoji": "\U0001f600", "quote": '"'},
    ],
    ids=repr,
)
def test_json_survives_a_round_trip(parse: Any, value: Any) -> None:
    assert parse(json.dumps(value)) == value
    assert parse(json.dumps(value, ensure_ascii=False) + "\n") == value
    assert parse("  " + json.dumps(value) + " \n") == value


@PARSERS
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name"),
        ('{"a": 1} x', "Extra data"),
        ('{"a": 1}x', "Extra data"),
        ('{"a": 1, "a": 2}', 'key "a" occurs more than once'),
        ('{"a": 1, "b": "x:y", "a": 2}', 'key "a" occurs more than once'),
        ('{"b": {"a": 1, "a": 2}}', 'key "a" occurs more than once'),
        ("[" * 65 + "]" * 65, "nested more than 64 deep"),
        ("[" * 3000 + "]" * 3000, "nested more than 64 deep"),
        ('{"a":' * 200_000 + "1" + "}" * 200_000, "nested more than 64 deep"),
        ('{"n": ' + "9" * 41 + "}", "a number of 41 digits"),
        ('{"n": ' + "9" * 5000 + "}", "a number of 5,000 digits"),
        ('{"id": "x\\ud800"}', "half a character"),
        ('{"\\udfff": 1}', "half a character"),
        ('{"id": "x\\u0000"}', "zero character"),
        ('{"\\u0000": 1}', "zero character"),
    ],
    ids=lambda text: str(text)[:20],
)
def test_json_beyond_the_limits_is_refused(parse: Any, text: str, reason: str) -> None:
    with pytest.raises(JsonError, match=reason):
        parse(text)


def test_json_errors_say_where() -> None:
    with pytest.raises(JsonError) as refused:
        parse_json('{"a": 1,\n "b": }')
    assert (refused.value.line, refused.value.column) == (2, 7)


def test_files_that_are_none_are_told_apart(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    reasons = {
        tmp_path: "is a folder, not a file",
        tmp_path / "pipe": "is a pipe, not a file",
        tmp_path / "link": "is a link to a file that does not exist",
        tmp_path / "absent": "there is no such file",
        tmp_path / "file" / "x": "cannot be read: Not a directory",
        tmp_path / ("x" * 300): "cannot be read: File name too long",
        tmp_path / "zero\0": "cannot be read: embedded null byte",
        Path("/dev/zero"): "is a device, not a file",
        tmp_path / "file": None,
    }
    assert {path: why_unreadable(path) for path in reasons} == reasons


def test_files_without_permission_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "rows.jsonl"
    path.write_text("{}")
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(UnreadableFileError, match=r"rows.jsonl: cannot be read: Permission denied"):
        read_text(path)


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin1").write_bytes("café".encode("latin-1"))
    with pytest.raises(UnreadableFileError, match="not UTF-8 text .* convert the file"):
        read_text(tmp_path / "latin1")
    with pytest.raises(UnreadableFileError, match="not UTF-8 text .* convert the file"):
        list(read_lines(tmp_path / "latin1"))


def test_large_files_and_lines_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.write(b"x" * 2000)
        file.truncate(1 << 40)  # takes no space
    with pytest.raises(UnreadableFileError, match="has 1,099,511,627,776 bytes"):
        read_json(path)
    monkeypatch.setattr(user_files, "MAX_LINE_CHARACTERS", 1000)
    with pytest.raises(UnreadableFileError, match="line 1 has more than 1,000 characters"):
        list(read_lines(path))


def test_lines_keep_their_ends(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes("\ufefföne\n\ntwo".encode())
    assert list(read_lines(tmp_path / "text")) == ["öne\n", "\n", "two"]


def test_a_number_of_too_many_digits_is_found_in_its_line() -> None:
    with pytest.raises(JsonError) as caught:
        parse_json('{"a": 1,\n "b": [2, -' + "7" * 50 + "]}")
    assert (caught.value.line, caught.value.column) == (2, 11)
    assert caught.value.reason.startswith("a number of 51 digits")


def test_a_text_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "growing"
    path.write_text("one\ntwo\n")
    lines = read_lines(path)
    assert next(lines) == "one\n"
    with path.open("a") as file:
        file.write("thr")
    with pytest.raises(UnreadableFileError, match="growing: has changed while it was read"):
        list(lines)


def test_lines_are_as_a_file_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"one\r\ntwo\rthree\n\n\x0bfour\xe2\x80\xa8five")
    for size in (1, 2, 3, 100):
        monkeypatch.setattr(user_files, "_BLOCK_CHARACTERS", size)
        assert list(read_lines(path)) == [
            *("one\n", "two\n", "three\n", "\n", "\x0bfour\u2028five")
        ]


@pytest.mark.parametrize(
    "lines",
    [
        ['{"a": 1}, {"b": 2}'],
        ['{"a": [1', '{"b": 2}]}'],
        ['{"a": 1', '"b": 2}'],
        ['{"a": {"b": 1}}'],
        ['{"a": 1, "a": 2}'],
        ['{"a": "\\u0041"}'],
        ["1"],
        ["{} x"],
        [""],
    ],
    ids=repr,
)
def test_lines_that_need_a_closer_look(lines: list[str]) -> None:
    good = ['{"a": 1}', '{"b": "x:y", "c": 2}']
    assert user_files.parse_flat_lines([*good[:1], *lines]) is None
    assert user_files.parse_flat_lines(['{"a": 1}\n', '{"c": null}']) == [{"a": 1}, {"c": None}]
