"""Batches on their way from a worker, and what becomes of a run whose workers fail."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from alpro.datasets import batch_transfer
from alpro.datasets.batch_transfer import BatchChannel, Refusal
from alpro.datasets.dataloader import make_loader
from alpro.datasets.video_datasets import TensorBatch
from alpro.errors import InputError, RunError, ScarcityError
from alpro.launchers import GROUP_SIGNALS
from alpro.training.atomic_io import FullDiskError


@dataclass
class Mixed(TensorBatch):
    """Tensors of several kinds, and what is no tensor."""

    frames: Tensor
    mask: Tensor
    none: Tensor
    loss: Tensor
    names: list[str]
    scores: np.ndarray


def mixed() -> Mixed:
    return Mixed(
        frames=torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4).transpose(0, 2),
        mask=torch.tensor([True, False]),
        none=torch.empty(0, 3),
        loss=torch.tensor(1.5, requires_grad=True),
        names=["a", "\u9986"],
        scores=np.arange(3.0),
    )


def test_a_batch_arrives_as_it_was_sent() -> None:
    channel = BatchChannel()
    received, sent = channel.send(mixed()).open(), mixed()
    for name in ("frames", "mask", "none", "loss"):
        tensor = getattr(received, name)
        assert torch.equal(tensor, getattr(sent, name))
        assert tensor.dtype == getattr(sent, name).dtype
        assert not tensor.requires_grad
    received.frames += 1  # it may be written to
    assert received.names == sent.names
    assert received.scores.tolist() == sent.scores.tolist()


def test_a_batch_outlives_its_channel_and_keeps_no_file_open_of_its_own() -> None:
    def num_open() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = num_open()
    channel = BatchChannel()
    received = channel.send(mixed()).open()
    channel.close_sender()
    del channel
    assert num_open() == before + 1  # its memory
    assert received.frames.sum() == 276
    del received
    assert num_open() == before


def test_batches_that_were_given_up_are_passed_over() -> None:
    channel = BatchChannel()
    parcels = [channel.send([torch.tensor(number)]) for number in range(4)]
    assert [parcels[number].open() for number in (1, 3)] == [[torch.tensor(1)], [torch.tensor(3)]]


def test_a_descriptor_that_finds_no_room_is_a_lack_of_open_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The system drops it without a word."""
    channel = BatchChannel()
    parcel = channel.send([1])
    received = batch_transfer.socket.recv_fds

    def without_descriptors(*arguments: Any) -> tuple[bytes, list[int]]:
        note, descriptors, *_ = received(*arguments)
        os.close(*descriptors)
        return note, []

    monkeypatch.setattr(batch_transfer.socket, "recv_fds", without_descriptors)
    refusal = batch_transfer.or_refusal(parcel.open)
    assert isinstance(refusal.error, ScarcityError)
    assert "ulimit -n" in str(refusal.error)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InputError("videos: none"), InputError),
        (FullDiskError("a: full", "Free some space"), RunError),
        (MemoryError(), ScarcityError),
        (PermissionError(errno.EACCES, "Permission denied", "a"), InputError),
    ],
)
def test_known_errors_are_sent_with_their_kind(error: Exception, kind: type[Exception]) -> None:
    def fail() -> None:
        raise error

    refusal = batch_transfer.or_refusal(fail)
    assert isinstance(refusal, Refusal)
    assert type(refusal.error) is kind


def test_other_errors_are_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        batch_transfer.or_refusal(lambda: 1 / 0)


def loaded(collate: Any, *, num_workers: int = 1) -> Any:
    return make_loader(
        range(400),
        batches=[[number] for number in range(400)],
        collate=collate,
        num_workers=num_workers,
        pin_memory=False,
    )


def started(loader: Any) -> tuple[Iterator[Any], Sequence[BaseProcess]]:
    """An iteration whose first batch has come, and its workers."""
    batches = iter(loader)
    next(batches)
    return batches, loader._workers  # noqa: SLF001


def test_neither_the_length_of_tmpdir_nor_its_absence_matters(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("x" * 200)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("x" * 200)))
    loader = loaded(torch.tensor)
    assert [batch.tolist() for batch, _ in zip(loader, range(3), strict=False)] == [[0], [1], [2]]


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGBUS"])
def test_a_worker_that_is_killed_ends_the_run_with_one_message(name: str) -> None:
    batches, workers = started(loaded(torch.tensor, num_workers=2))
    os.kill(workers[1].pid or 0, signal.Signals[name])
    workers[1].join()
    with pytest.raises(ScarcityError) as caught:
        list(batches)
    assert f"a loader worker (process {workers[1].pid}) was" in str(caught.value)
    assert name in str(caught.value)
    assert ("Lower n_workers" if name == "SIGKILL" else "decode_timeout") in str(caught.value)
    workers[0].join()  # which is ended with it


def exit_with_three(keys: list[int]) -> list[int]:
    if keys == [1]:
        sys.exit(3)
    return keys


def test_a_worker_that_exits_ends_the_run() -> None:
    batches, workers = started(loaded(exit_with_three))
    workers[0].join()
    with pytest.raises(ScarcityError, match="ended with exit code 3; what it printed says why"):
        next(batches)


def test_a_worker_of_another_loader_is_missed_at_once() -> None:
    """Validation's has nothing to do for hours."""
    validation = loaded(torch.tensor)
    _, workers = started(validation)
    batches, _ = started(loaded(torch.tensor))
    workers[0].kill()
    workers[0].join()
    with pytest.raises(ScarcityError, match=r"was killed \(SIGKILL\)"):
        next(batches)


def test_the_end_of_a_worker_interrupts_nothing_else() -> None:
    """PyTorch's handler raised an error wherever the trainer was."""
    before = signal.getsignal(signal.SIGCHLD)
    started(loaded(torch.tensor))
    assert signal.getsignal(signal.SIGCHLD) is before


def test_workers_leave_signals_to_the_group_to_the_trainer() -> None:
    batches, workers = started(loaded(torch.tensor))
    for number in GROUP_SIGNALS:
        os.kill(workers[0].pid or 0, number)
    assert len(list(batches)) == 399


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "--pids-limit"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (OSError(errno.ENOSPC, "No space left on device"), "--shm-size"),
        (OSError(errno.EROFS, "Read-only file system"), "--shm-size"),
        (RuntimeError("can't start new thread"), "--pids-limit"),
    ],
)
def test_workers_that_cannot_be_started_say_why(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(os, "fork", fail)
    with pytest.raises(ScarcityError, match=r"^n_workers 2: ") as caught:
        next(iter(loaded(torch.tensor, num_workers=2)))
    assert message in str(caught.value)


def out_of_files(_keys: list[int]) -> None:
    raise OSError(errno.EMFILE, "Too many open files")


def test_a_worker_without_open_files_says_so() -> None:
    with pytest.raises(ScarcityError, match=r"^Too many open files. Raise the limit \(ulimit -n"):
        next(iter(loaded(out_of_files)))


class Pinned(list[int]):
    """A batch that is pinned without a GPU."""

    def pin_memory(self) -> str:
        if not self:
            raise RuntimeError("CUDA error: out of memory\nmore")
        return "pinned"


def test_the_thread_that_pins_opens_parcels_and_reports_what_it_lacks() -> None:
    channel = BatchChannel()
    assert channel.send(Pinned([1])).pin_memory() == "pinned"
    refusal = channel.send(Pinned()).pin_memory()
    assert str(refusal.error).startswith("out of memory (CUDA error: out of memory). Lower")
