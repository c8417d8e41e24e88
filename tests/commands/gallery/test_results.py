"""Results as commands read them."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from alpro.commands.gallery.results import (
    check_readable,
    chosen_results,
    read_records,
    recorded_path,
)
from alpro.errors import InputError


def name_of(record: dict[str, Any]) -> str:
    return str(record["name"])


@pytest.mark.parametrize("content", ["{", "3", "[3]", '[{"id": 1}]', "[" * 5000, '{"name": 1}'])
def test_records_that_are_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(InputError, match=f"^{path} is no list of rankings: "):
        read_records(path, name_of, noun="rankings")


def test_records_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="results.json: there is no such file$"):
        read_records(tmp_path / "results.json", name_of, noun="rankings")


@pytest.mark.parametrize("name", ["", "results_test"])
def test_a_folder_of_results_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "results_test").mkdir()
    check_readable(tmp_path)
    monkeypatch.setattr("os.access", lambda path, _: Path(path) != tmp_path / name)
    with pytest.raises(InputError, match=f"^{tmp_path / name}: cannot be read: Permission denied$"):
        check_readable(tmp_path)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"protocol": {"videos": 3}}'])
def test_a_path_that_was_not_recorded(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "scores.json").write_text(content)
    with pytest.raises(InputError, match=r"scores.json does not tell .*: give --videos$"):
        recorded_path(tmp_path / "results.json", "videos", flag="--videos")


def test_a_path_that_was_recorded(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(json.dumps({"protocol": {"videos": "a/b"}}))
    assert recorded_path(tmp_path / "x.json", "videos", flag="--videos") == Path("a/b")


def test_results_of_another_task_are_recognised(tmp_path: Path) -> None:
    flags = Namespace(results_dir=None, output_dir=tmp_path / "absent")
    with pytest.raises(InputError, match="there is no folder .*absent"):
        chosen_results(flags, name="results.json")
    flags.output_dir = tmp_path
    with pytest.raises(InputError, match="run an inference first"):
        chosen_results(flags, name="results.json")
    (tmp_path / "results_test").mkdir()
    (tmp_path / "results_test/results_all.json").write_text("[]")
    with pytest.raises(InputError, match="results of another task, for alpro answer-sheet"):
        chosen_results(flags, name="results.json")
