from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path

import pytest

from alpro.datasets.quarantine import Quarantine


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log" / "quarantine.jsonl"


def test_a_video_of_one_process_is_known_to_others(path: Path) -> None:
    one, other = Quarantine(path), Quarantine(path)
    copy = pickle.loads(pickle.dumps(one))
    assert one.reason_for("videos/a") is None
    one.add("videos/a", "took too long")
    other.add("videos/ü \udcff", "its process ended")
    for quarantine in (one, other, copy, Quarantine(path)):
        assert quarantine.reason_for("videos/a") == "took too long"
        assert quarantine.reason_for("videos/ü \udcff") == "its process ended"
        assert quarantine.reason_for("videos/b") is None


def test_a_quarantine_without_file_is_known_to_this_process_only() -> None:
    quarantine = Quarantine(None)
    quarantine.add("a", "took too long")
    assert quarantine.reason_for("a") == "took too long"
    assert Quarantine(None).reason_for("a") is None


def test_half_a_line_waits_for_its_other_half(path: Path) -> None:
    quarantine = Quarantine(path)
    quarantine.add("a", "took too long")
    line = json.dumps({"video": "b", "reason": "died"})
    with path.open("a") as file:
        file.write(line[:9])
        file.flush()
        assert quarantine.reason_for("b") is None
        assert quarantine.reason_for("a") == "took too long"
        file.write(line[9:] + "\n")
        file.flush()
    assert quarantine.reason_for("b") == "died"


@pytest.mark.parametrize(
    "rest",
    [
        '{"video": "b"',
        '{"video": "b"}',
        "null",
        "\x00\xff",
        '{"video": [], "reason": "died"}',
        '{"video": "b", "reason": 3}',
        '{"video": "b", "reason": "died", "seconds": "60"}',
        '["video", "reason"]',
    ],
)
def test_invalid_lines_are_skipped(path: Path, rest: str) -> None:
    quarantine = Quarantine(path)
    quarantine.add("a", "took too long")
    with path.open("ab") as file:
        file.write(rest.encode("latin-1"))
    Quarantine(path).add("c", "died")
    for reader in (quarantine, Quarantine(path)):
        assert reader.reason_for("a") == "took too long"
        assert reader.reason_for("b") is None
        assert reader.reason_for("c") == "died"


def test_deleted_lines_release_videos(path: Path) -> None:
    one, other = Quarantine(path), Quarantine(path)
    for key in ("a", "b"):
        one.add(key, "took too long")
        assert one.reason_for(key) == other.reason_for(key) == "took too long"
    first, second = path.read_text().splitlines(keepends=True)
    path.write_text(second)
    assert [one.reason_for(key) is None for key in ("a", "b")] == [True, False]
    edited = path.with_suffix(".new")  # as editors do
    edited.write_text(first + first)
    edited.rename(path)
    assert [one.reason_for(key) is None for key in ("a", "b")] == [False, True]
    path.unlink()
    for key in ("a", "b"):
        assert one.reason_for(key) is other.reason_for(key) is None
    one.add("b", "died")
    assert one.reason_for("b") == other.reason_for("b") == "died"
    path.write_text("")
    assert one.reason_for("b") is other.reason_for("b") is None


@pytest.mark.parametrize(
    ("then", "today", "is_kept"),
    [
        ((60, 2048), (60, 2048), True),
        ((60, 2048), (30, 1024), True),
        ((60, 2048), (61, 2048), False),
        ((60, 2048), (60, 4096), False),
        ((60, 2048), (0, 2048), False),
        ((60, 2048), (60, 0), False),
        ((0, 2048), (60, 2048), True),
        ((0, 0), (0, 0), True),
    ],
)
def test_higher_limits_release_videos(
    path: Path, then: tuple[int, int], today: tuple[int, int], is_kept: bool
) -> None:
    Quarantine(path, seconds=then[0], megabytes=then[1]).add("a", "too much")
    quarantine = Quarantine(path, seconds=today[0], megabytes=today[1])
    assert quarantine.reason_for("a") == ("too much" if is_kept else None)
    quarantine.add("a", "still too much")
    assert quarantine.reason_for("a") == "still too much"


def test_a_quarantine_file_that_is_not_writable_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "log").write_text("a file, no folder")
    quarantine = Quarantine(tmp_path / "log" / "quarantine.jsonl")
    with caplog.at_level(logging.WARNING):
        quarantine.add("a", "took too long")
    assert "cannot be written" in caplog.text
    assert quarantine.reason_for("a") == "took too long"
