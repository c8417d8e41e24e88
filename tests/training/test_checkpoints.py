from __future__ import annotations

import errno
import logging
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from alpro.errors import InputError, RunError
from alpro.training.checkpoints import CheckpointWriter, load_restore, save_restore
from alpro.training.run_directory import RunDirectory
from alpro.training.state_dicts import read_weights
from tests.training.disks import largest_file
from tests.training.toys import (
    KilledError,
    assert_same,
    assert_same_run,
    kill_at_batch,
    make_plan,
    train,
)


def save_steps(root: Path, *, keep: int, best: tuple[int, ...]) -> set[str]:
    """Save updates 9 to 12 with a weight that is the update's number; names of the files."""
    writer, model = CheckpointWriter(RunDirectory(root, rank=0), keep=keep), nn.Linear(1, 1)
    for step in range(9, 13):
        nn.init.constant_(model.weight, step)
        writer.save(model, step=step, best=step in best)
    return {path.name.removeprefix("model_step_") for path in (root / "ckpt").iterdir()}


def test_checkpoints_are_copied_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr("os.link", no_links)
    assert save_steps(tmp_path, keep=1, best=(10,)) == {"best.pt", "last.pt", "12.pt"}
    assert weight(tmp_path, "best") == 10
    assert weight(tmp_path, "last") == 12


def test_the_newest_checkpoints_stay_after_updates_are_renumbered(tmp_path: Path) -> None:
    output = RunDirectory(tmp_path, rank=0)
    writer = CheckpointWriter(output, keep=2)
    for age, step in enumerate((38, 40, 20, 22)):  # from 20 on with twice as many processes
        writer.save(nn.Linear(1, 1), step=step, best=False)
        os.utime(output.checkpoint(step), (age, age))
    writer.save(nn.Linear(1, 1), step=24, best=False)
    assert output.steps() == ["22", "24", "last"]


def weight(root: Path, name: str) -> float:
    return read_weights(root / f"ckpt/model_step_{name}.pt")["weight"].item()


@pytest.mark.parametrize(
    ("keep", "numbers"), [(0, (9, 10, 11, 12)), (2, (11, 12)), (1, (12,)), (9, (9, 10, 11, 12))]
)
def test_the_newest_checkpoints_stay_with_best_and_last(
    tmp_path: Path, keep: int, numbers: tuple[int, ...]
) -> None:
    names = save_steps(tmp_path, keep=keep, best=(9, 10))
    assert names == {"best.pt", "last.pt", *(f"{number}.pt" for number in numbers)}
    assert weight(tmp_path, "best") == 10
    assert weight(tmp_path, "last") == 12
    assert weight(tmp_path, "12") == 12


def test_checkpoints_are_plain_state_dicts(tmp_path: Path) -> None:
    save_steps(tmp_path, keep=1, best=(12,))
    state = torch.load(tmp_path / "ckpt/model_step_best.pt", weights_only=True)
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "weight": (1, 1),
        "bias": (1,),
    }


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    output = RunDirectory(tmp_path, rank=1)
    CheckpointWriter(output, keep=0).save(nn.Linear(1, 1), step=1, best=True)
    save_restore(output, {"step": 1})
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def output(tmp_path: Path) -> RunDirectory:
    """A folder with the restore files of updates 2 (backup) and 4."""
    output = RunDirectory(tmp_path, rank=0)
    for step in (2, 4):
        save_restore(output, {"step": step})
    return output


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def test_the_newest_restore_file_is_taken(output: RunDirectory) -> None:
    state = load_restore(output)
    assert state is not None
    assert state["step"] == 4


def test_without_restore_files_none_is_loaded(tmp_path: Path) -> None:
    assert load_restore(RunDirectory(tmp_path, rank=0)) is None


@pytest.mark.parametrize("how", ["damaged", "empty", "gone"])
def test_the_backup_replaces_a_damaged_restore_file(
    output: RunDirectory, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    if how == "gone":
        output.restore.unlink()
    elif how == "empty":
        output.restore.write_bytes(b"")
    else:
        damage(output.restore)
    with caplog.at_level(logging.WARNING):
        state = load_restore(output)
    assert state is not None
    assert state["step"] == 2
    assert (str(output.restore) in caplog.text) == (how != "gone")


def test_two_damaged_restore_files_are_an_error_that_names_each_once(
    output: RunDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    damage(output.restore)
    damage(output.restore_backup)
    with pytest.raises(InputError) as caught:
        load_restore(output)
    message = str(caught.value)
    for path in (output.restore, output.restore_backup):
        assert f"  {path}: the file is truncated or damaged\n" in message
    assert not caplog.records
    assert "--overwrite 1" in message


def test_a_restore_file_of_another_format_is_an_error(output: RunDirectory) -> None:
    torch.save({"format": 99, "step": 4}, output.restore)
    with pytest.raises(InputError, match="written in format 99, this version reads"):
        load_restore(output)


def loaded(output: RunDirectory, content: bytes) -> dict[str, Any]:
    """What is taken if the newer restore file has a content."""
    output.restore.write_bytes(content)
    state = load_restore(output)
    assert state is not None
    return state


@pytest.fixture
def newest(output: RunDirectory) -> dict[str, Any]:
    """A restore file with tensors, written after those of updates 2 and 4."""
    tensors = {"weight": torch.randn(9, 7), "steps": [torch.arange(5)]}
    save_restore(output, {"step": 6, "model": tensors, "ranks": [{"random": (1, "MT")}]})
    state = load_restore(output)
    assert state is not None
    return state


@pytest.mark.usefixtures("caplog")
def test_a_restore_file_cut_short_anywhere_is_not_taken(
    output: RunDirectory, newest: dict[str, Any]
) -> None:
    content = output.restore.read_bytes()
    for size in range(0, len(content), 11):
        assert loaded(output, content[:size])["step"] == 4
    assert loaded(output, content[:-1])["step"] == 4
    assert_same(loaded(output, content), newest)


def test_a_flipped_bit_anywhere_is_noticed_or_changes_nothing(
    output: RunDirectory, newest: dict[str, Any]
) -> None:
    content, generator = output.restore.read_bytes(), random.Random(0)
    weights = newest["model"]["weight"].numpy().tobytes()
    first = content.index(weights)
    places = {first, first + len(weights) - 1, *range(0, len(content), 7)}
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << generator.randrange(8)
        state = loaded(output, bytes(changed))
        if state["step"] != 4:  # a date, say, that nobody reads
            assert_same(state, newest)
            assert not first <= place < first + len(weights)


@pytest.mark.parametrize("content", [{"weight": torch.zeros(2)}, torch.zeros(2)])
def test_another_file_in_the_place_of_a_restore_file_is_an_error(
    output: RunDirectory, content: object
) -> None:
    torch.save(content, output.restore)
    with pytest.raises(InputError, match=r"restore\.pt: this is no restore file. Put it elsewhere"):
        load_restore(output)
    assert output.restore.exists()


def test_too_little_memory_is_no_damage(
    output: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def empty(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    save_restore(output, {"weight": torch.zeros(2)})
    monkeypatch.setattr("torch.empty", empty)
    with pytest.raises(RunError, match=r"allocate memory for 8 bytes of a tensor of .*restore\.pt"):
        load_restore(output)
    assert output.restore.exists()


def test_a_full_disk_leaves_checkpoints_and_restore_files_as_they_were(
    output: RunDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    writer = CheckpointWriter(output, keep=1)
    writer.save(nn.Linear(1, 1), step=4, best=True)
    files = {path: path.read_bytes() for path in output.root.rglob("*") if path.is_file()}
    large = nn.Linear(300, 300)
    with largest_file(100_000):
        with pytest.raises(RunError, match=r"restore\.pt: cannot .* needs at least 361,200\.\n"):
            save_restore(output, {"step": 6, "model": large.state_dict(), "ranks": [{"step": 6}]})
        with pytest.raises(RunError, match=r"model_step_6\.pt: cannot .* at least 361,200\.\n"):
            writer.save(large, step=6, best=True)
    assert {path: path.read_bytes() for path in output.root.rglob("*") if path.is_file()} == files
    assert not caplog.records


def test_another_error_of_saving_is_reported(output: RunDirectory) -> None:
    with pytest.raises(AttributeError, match="Can't pickle local object"):
        save_restore(output, {"step": lambda: 6})
    with pytest.raises(RuntimeError, match="made up"):
        save_restore(output, {"step": Unpicklable()})
    assert {path.name for path in output.root.iterdir()} == {"restore.pt", "restore_backup.pt"}


class Unpicklable:
    """An object that cannot be saved."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        raise RuntimeError("made up")


def test_a_run_whose_newest_restore_file_is_damaged_ends_the_same(tmp_path: Path) -> None:
    plan = make_plan()
    train(tmp_path / "whole", plan=plan)
    with pytest.raises(KilledError):
        train(tmp_path / "killed", plan=plan, batch=kill_at_batch(6))
    damage(tmp_path / "killed/restore.pt")
    train(tmp_path / "killed", plan=plan)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


class Evil:
    """An object whose pickle would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code of a weights file was run')",)


@pytest.mark.parametrize(
    "content",
    [b"no weights", pickle.dumps(Evil(), protocol=2)],
    ids=["text", "pickle"],
)
def test_a_file_that_holds_no_weights_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"weights\.pt: not a file of PyTorch weights"):
        read_weights(path)


def test_code_in_a_weights_file_is_not_run_and_nobody_is_advised_to_run_it(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"weight": Evil()}, path)
    with pytest.raises(InputError) as caught:
        read_weights(path)
    assert str(caught.value) == (
        f"{path}: weight is an object of builtins.exec, which is not read."
    )


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
@pytest.mark.parametrize("size", [0, 100])
def test_a_damaged_weights_file_is_an_error(tmp_path: Path, name: str, size: int) -> None:
    path = tmp_path / name
    save = torch.save if path.suffix == ".pt" else save_file
    save({"weight": torch.zeros(9)}, path)
    path.write_bytes(path.read_bytes()[:size])
    problem = "the file is truncated or damaged" if size else "the file is empty"
    with pytest.raises(InputError) as caught:
        read_weights(path)
    assert str(caught.value) == f"{path}: {problem}."


def test_a_tensor_is_not_a_checkpoint(tmp_path: Path) -> None:
    torch.save(torch.zeros(2), tmp_path / "weights.pt")
    with pytest.raises(InputError, match="expected a dict of tensors, found Tensor"):
        read_weights(tmp_path / "weights.pt")


def test_a_missing_weights_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such checkpoint file"):
        read_weights(tmp_path / "weights.pt")
