"""The commands ``alpro index``, ``search`` and ``export-features``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

import alpro
from alpro.commands.main import main
from alpro.search.index import DATABASE
from tests.search.fakes import fake_model, write_levels

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command with a fake model in a folder of two videos; returns what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(alpro, "load", lambda *_, **__: fake_model(), raising=False)
    write_levels(tmp_path / "videos/a.mp4", [3, 3, 3, 9, 9, 9])
    write_levels(tmp_path / "videos/b.mp4", [15, 15])

    def call(*words: str, code: int = 0) -> str:
        assert main(list(words)) == code
        output = capsys.readouterr()
        return output.out if code == 0 else output.err

    return call


INDEX = ("index", "videos", "--model", "m", "--window", "1", "--stride", "0.5")


def test_an_index_is_made_looked_at_and_searched(run: Run, tmp_path: Path) -> None:
    (tmp_path / "videos/bad.mp4").write_bytes(b"no video")
    printed = run(*INDEX)
    assert "3 files indexed: 6 windows of 0:04 of video in" in printed
    assert "1 file cannot be read:\n" in printed
    assert f"{tmp_path}/videos/bad.mp4: " in printed
    assert "0 files indexed, 3 unchanged: 0 windows" in run("index", "videos")
    status = run("index", "--status")
    assert "6 windows of 1 s every 0.5 s, of 2 videos, 0:04\nmodel: " in status
    assert "bad.mp4: " in status
    found = run("search", "level 9", "--min-score", "0.9")
    assert found.startswith(f"{tmp_path}/videos/a.mp4\n  1.000  0:01 - 0:03\n6 windows of 3 files")
    value = json.loads(run("search", "level 9", "--top", "1", "--json"))
    assert value["moments"][0].keys() >= {"path", "start", "end", "peak", "score", "match"}
    assert [value["moments"][0][key] for key in ("start", "end")] == [1.5, 3.0]
    clip = "videos/a.mp4#t=0,1"
    assert "0:00 - 0:0" in run("search", "--like", clip, "--not", "level 15", "--in", "videos")


def test_mistakes_are_told_in_a_line(run: Run, tmp_path: Path) -> None:
    assert "there is no index" in run("search", "level 9", code=2)
    assert "no folder of videos" in run("index", code=2)
    assert "--model: name a model folder" in run("index", "videos", code=2)
    assert "not found" in run("index", "nowhere", "--model", "m", code=2)
    run(*INDEX)
    assert "nothing to search for" in run("search", code=2)
    assert "no-clip.mp4: there is no such file" in run("search", "--like", "no-clip.mp4", code=2)
    (tmp_path / "alpro-index" / DATABASE).write_bytes(b"x" * 1000)
    for words in (("search", "level 9"), ("index", "videos"), ("index", "--status")):
        assert "cannot be read (file is not a database). Delete" in run(*words, code=2)


def test_ranks_of_a_launcher_share_the_files(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    printed = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        printed.append(run(*INDEX))
    assert all("1 file indexed" in one for one in printed)
    assert "of 2 videos" in run("index", "--status")


def test_indexes_are_merged(run: Run) -> None:
    for part in ("1/2", "2/2"):
        run(*INDEX, "--part", part, "--index", f"part{part[0]}")
    assert run("index", "--merge", "part1", "part2", "--index", "all").count("1 file added") == 2
    assert "of 2 videos" in run("index", "--status", "--index", "all")


@pytest.mark.parametrize("kind", ["parquet", "npy"])
def test_features_are_exported_with_paths_and_times(run: Run, kind: str) -> None:
    run(*INDEX)
    assert "6 windows" in run("export-features", "--output", f"f.{kind}")
    if kind == "parquet":
        table = parquet.read_table("f.parquet")
        rows, vectors = table.to_pylist(), np.stack(table["vector"].to_numpy())
    else:
        rows = [json.loads(line) for line in Path("f.jsonl").read_text().splitlines()]
        vectors = np.load("f.npy")
    assert vectors.dtype == np.float16
    assert [(os.path.basename(row["path"]), row["start"], row["end"]) for row in rows] == [
        *(("a.mp4", start, start + 1) for start in (0, 0.5, 1, 1.5, 2)),
        ("b.mp4", 0, 1),
    ]
    assert np.argmax(vectors, axis=1).tolist()[::4] == [3, 9]
    assert np.argmax(vectors[5]) == 15
    assert "must end with .parquet or .npy" in run("export-features", "--output", "f.csv", code=2)
