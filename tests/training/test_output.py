from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from src.errors import InputError
from src.training.output import OutputFolder, write_atomically, write_json


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    model = tmp_path / "model.json"
    model.write_text('{"hidden_size": 32}')
    return {
        **{"model_config": str(model), "learning_rate": 0.1, "betas": (0.9, 0.98)},
        **{"n_workers": 1, "n_gpu": 1, "num_train_steps": 10},
    }


def claim(root: Path, arguments: dict[str, Any], *, overwrite: bool = False) -> None:
    output = OutputFolder(root, rank=0)
    output.claim(arguments, may_differ={"n_workers"}, overwrite=overwrite)


def test_a_fresh_folder_gets_the_runs_config(tmp_path: Path, arguments: dict[str, Any]) -> None:
    claim(tmp_path / "a/run", arguments)
    log = tmp_path / "a/run/log"
    assert json.loads((log / "args.json").read_text()) == {**arguments, "betas": [0.9, 0.98]}
    assert json.loads((log / "model_config.json").read_text()) == {"hidden_size": 32}


def test_the_same_run_may_go_on_elsewhere(tmp_path: Path, arguments: dict[str, Any]) -> None:
    claim(tmp_path / "run", arguments)
    before = (tmp_path / "run/log/args.json").read_text()
    claim(tmp_path / "run", {**arguments, "n_workers": 5, "n_gpu": 2, "num_train_steps": 5})
    assert (tmp_path / "run/log/args.json").read_text() == before


def test_another_runs_folder_is_refused_with_all_differences(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    claim(tmp_path / "run", arguments)
    del arguments["betas"]
    with pytest.raises(InputError) as caught:
        claim(tmp_path / "run", {**arguments, "learning_rate": 0.2, "seed": 4, "n_workers": 9})
    message = str(caught.value)
    assert f"output_dir: {tmp_path / 'run'} holds the output of another run" in message
    assert "  learning_rate: 0.1 there, 0.2 now\n" in message
    assert "  betas: [0.9, 0.98] there, None now\n" in message
    assert "  seed: None there, 4 now\n" in message
    assert "n_workers" not in message
    assert "--overwrite 1" in message


def test_overwriting_deletes_what_the_run_wrote_and_nothing_else(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    root = tmp_path / "run"
    claim(root, arguments)
    mine = ("log/metrics.jsonl", "ckpt/model_step_1.pt", "restore.pt", "restore_backup.pt")
    for name in (*mine, "results_test/step_best_1_mean/scores.json", "notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("old")
    claim(root, {**arguments, "learning_rate": 0.2}, overwrite=True)
    left = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    assert left == ["log/args.json", "log/model_config.json", "notes.txt"]
    assert json.loads((root / "log/args.json").read_text())["learning_rate"] == 0.2


def test_only_rank_0_writes(tmp_path: Path, arguments: dict[str, Any]) -> None:
    output = OutputFolder(tmp_path / "run", rank=1)
    output.claim(arguments, may_differ=(), overwrite=True)
    assert not (tmp_path / "run").exists()


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail, backup=tmp_path / "backup")
    assert path.read_text() == "old"
    assert not (tmp_path / "backup").exists()


def write_content(path: Path, *, content: bytes) -> None:
    path.write_bytes(content)


def test_the_former_version_becomes_the_backup(tmp_path: Path) -> None:
    path, backup = tmp_path / "deep/file", tmp_path / "deep/backup"
    for content in (b"one", b"two", b"three"):
        write_atomically(path, partial(write_content, content=content), backup=backup)
    assert (path.read_text(), backup.read_text()) == ("three", "two")
    assert sorted(p.name for p in path.parent.iterdir()) == ["backup", "file"]


def test_json_is_written_readable(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"caption": "größer", "list": [1]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"caption": "größer", "list": [1]}
    assert "größer" in text
