"""Files and folders that are there and cannot be read: all are named together, before any work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.factories import TinyExperiment
from tests.tasks.conftest import Refuse, Run

DENIED = "cannot be read: Permission denied"


@pytest.fixture
def denied(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Files and folders that nobody may read; root is not asked for permissions."""
    paths: set[Path] = set()
    access = os.access

    def may_access(path: str | Path, mode: int) -> bool:
        return Path(path) not in paths and access(path, mode)

    def why(path: Path) -> str | None:
        return DENIED if path in paths else None

    monkeypatch.setattr("alpro.runs.preflight.why_unreadable", why)
    monkeypatch.setattr("alpro.user_files.why_unreadable", why)
    monkeypatch.setattr("os.access", may_access)
    return paths


def test_unreadable_inputs_are_all_named_at_once(
    experiment: TinyExperiment, refused: Refuse, denied: set[Path]
) -> None:
    root = experiment.root
    (root / "weights.pt").touch()
    denied |= {root / "txt/train.jsonl", root / "videos", root / "tokenizer/vocab.txt"}
    denied.add(root / "weights.pt")
    flags = ("--e2e_weights_path", str(root / "weights.pt"), "--random_init", "0")
    lines = refused(experiment.arguments(*flags)).splitlines()
    assert lines == [
        f"train_datasets.0.txt (tiny train): {root / 'txt/train.jsonl'} {DENIED}.",
        *(
            f"{part}_datasets.0.img (tiny {part}): folder {root / 'videos'} {DENIED}."
            for part in ("train", "val", "test")
        ),
        f"tokenizer_dir: {root / 'tokenizer/vocab.txt'} {DENIED}.",
        f"e2e_weights_path: {root / 'weights.pt'} {DENIED}.",
        "Correct the paths, or make the files available.",
    ]
    assert not (root / "run").exists()


def test_a_vocabulary_folder_without_permission_is_named(
    experiment: TinyExperiment, refused: Refuse, denied: set[Path]
) -> None:
    denied.add(experiment.root / "tokenizer")
    message = refused(experiment.arguments())
    assert f"tokenizer_dir: folder {experiment.root / 'tokenizer'} {DENIED}.\n" in message


def test_an_lmdb_file_without_permission_is_named(
    experiment: TinyExperiment, refused: Refuse, denied: set[Path]
) -> None:
    data = experiment.root / "videos/data.mdb"
    data.touch()
    denied.add(data)
    message = refused(experiment.arguments())
    assert f"val_datasets.0.img (tiny val): {data} {DENIED}.\n" in message


def test_starting_weights_without_permission_are_named(
    experiment: TinyExperiment, refused: Refuse, denied: set[Path]
) -> None:
    paths = {f"{part}_weights_path": experiment.root / f"{part}.pt" for part in ("visual", "bert")}
    for path in paths.values():
        path.touch()
    denied.update(paths.values())
    flags = [word for key, path in paths.items() for word in (f"--{key}", str(path))]
    message = refused(experiment.arguments("--random_init", "0", *flags))
    for key, path in paths.items():
        assert f"{key}: {path} {DENIED}.\n" in message


def test_inference_inputs_without_permission_are_named(
    experiment: TinyExperiment, run: Run, refused: Refuse, denied: set[Path]
) -> None:
    run(experiment.arguments())
    folder = experiment.root / "videos"
    denied |= {experiment.root / "txt/test.jsonl", folder}
    message = refused(experiment.inference())
    assert f"inference_txt_db: {experiment.root / 'txt/test.jsonl'} {DENIED}.\n" in message
    assert f"inference_img_db: folder {folder} {DENIED}.\n" in message


@pytest.mark.parametrize("name", ["txt/train.jsonl", "tokenizer/vocab.txt"])
def test_special_files_are_named_and_never_waited_for(
    experiment: TinyExperiment, refused: Refuse, name: str
) -> None:
    path = experiment.root / name
    path.unlink()
    os.mkfifo(path)
    assert str(path.parent) in refused(experiment.arguments())


def test_paths_meant_for_a_shell_or_a_network_get_a_hint(
    experiment: TinyExperiment, refused: Refuse
) -> None:
    train = {"name": "gone", "txt": "${DATA}/train.jsonl", "img": "s3://bucket/videos"}
    weights = ("--e2e_weights_path", "https://example.org/model.pt")
    message = refused(experiment.arguments(*weights, train_datasets=[train]))
    assert "there is no file ${DATA}/train.jsonl. Variables are not replaced in" in message
    assert "there is no folder s3://bucket/videos. Addresses are not opened: download" in message
    assert "there is no such checkpoint file. Addresses are not opened: download it" in message
