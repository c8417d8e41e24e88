"""Named points of a training run, and faults that happen to a process when it reaches one.

Everything is done from outside: functions that any version of the loop must call are wrapped.
A file counts as written when it is synced to the disk; what a kill between two bytes leaves behind
is that file cut short.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from alpro.tasks.retrieval.objective import RetrievalObjective
from tests.factories import FakeDecoder

POINTS = {
    "decode": "before a video is decoded, for training or validation",
    "update": "before the first batch of an update",
    "forward": "before a batch goes through the model",
    "backward": "after a batch's own gradients are there, before they are exchanged",
    "step": "after the exchange, before the weights change",
    "stepped": "after the weights have changed",
    "validation": "before a validation",
    "validated": "after a validation",
    "bytes of checkpoint": "a share of a checkpoint's bytes is written",
    "written checkpoint": "a checkpoint has all bytes, under its temporary name",
    "renamed checkpoint": "a checkpoint has its name",
    "bytes of restore": "a share of a restore file's bytes is written",
    "written restore": "a restore file has all bytes, under its temporary name",
    "linked restore": "the former restore file has its second name",
    "renamed restore": "a restore file has its name",
}
WRITTEN = {"restore": "restore", "checkpoint": "model_step"}  # kind of file -> part of its name
ACTIONS = (
    *("kill", "kill all", "term", "term all", "raise", "hang", "await SIGTERM"),
    *("nan", "inf gradient", "full"),
)
LONGEST_WAIT = 240  # seconds for a SIGTERM that should come
STRUCK = "struck"  # name of a file with the time at which a fault has happened
CUT = ("kill", "kill all", "full")  # what leaves a file cut short, at a point in its bytes


class FaultError(RuntimeError):
    """What a run is made to fail with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens where."""

    point: str
    action: str
    time: int = 1
    """Happens when a process reaches the point for this time, counted from 1."""
    rank: int | None = None
    """The process that it happens to; None for every one that reaches the point."""
    share: float = 1.0
    """Of a file's bytes that are written, at points in bytes."""

    def __post_init__(self) -> None:
        assert self.point in POINTS, self.point
        assert self.action in ACTIONS, self.action


def write_faults(path: Path, faults: Sequence[Fault]) -> Path:
    """Write faults for :func:`read_faults`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(fault) for fault in faults]))
    return path


def read_faults(path: Path) -> list[Fault]:
    """What :func:`write_faults` has written; none where there is no file."""
    return [Fault(**fault) for fault in json.loads(path.read_text())] if path.exists() else []


class Points:
    """One process's way along the named points."""

    def __init__(self, faults: Sequence[Fault], *, rank: int, folder: Path) -> None:
        """Prepare; the folder gets files that tell the process's number and its updates.

        Where SIGTERM comes, also one with the update in hand, counted from 1.
        """
        self._faults = [fault for fault in faults if fault.rank in (None, rank)]
        self._reached: Counter[str] = Counter()
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"pid{rank}").write_text(str(os.getpid()))
        self._updates = folder / f"updates{rank}"
        self._terminated = folder / f"terminated{rank}"
        self._terminated.unlink(missing_ok=True)  # of an earlier start
        self._step = 0

    def on_update_start(self, step: int) -> None:
        """Note an update for whoever looks on from outside."""
        with self._updates.open("a") as file:
            file.write(f"{step}\n")
        self._step = step

    def note_termination(self) -> None:
        """Note the update that is in hand when SIGTERM comes for the first time."""
        if not self._terminated.exists():
            self._terminated.write_text(str(self._step))

    def reach(self, point: str, path: Path | None = None) -> str:
        """Let happen what is to happen at a point; returns the action if it is the caller's."""
        self._reached[point] += 1
        for fault in self._faults:
            if (fault.point, fault.time) == (point, self._reached[point]):
                if path is not None and fault.action in CUT:
                    os.truncate(path, int(fault.share * path.stat().st_size))
                return self._happen(fault)
        return ""

    def _happen(self, fault: Fault) -> str:
        (self._folder / STRUCK).write_text(str(time.time()))
        kind, _, whom = fault.action.partition(" ")
        if kind in ("kill", "term"):
            number = signal.SIGKILL if kind == "kill" else signal.SIGTERM
            others = [int(path.read_text()) for path in self._folder.glob("pid*")]
            for process in others if whom == "all" else ():
                if process != os.getpid():
                    os.kill(process, number)
            os.kill(os.getpid(), number)
        elif kind == "raise":
            raise FaultError(f"made to fail at the point '{fault.point}'")
        elif kind == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        elif kind == "hang":
            time.sleep(24 * 3600)
        elif kind == "await":
            until = time.monotonic() + LONGEST_WAIT
            while not self._terminated.exists() and time.monotonic() < until:
                time.sleep(0.01)
        return fault.action


@contextmanager
def named_points(points: Points) -> Iterator[None]:
    """Context in which a retrieval run over made-up videos meets its faults."""
    with ExitStack() as patches:

        def around(owner: Any, name: str, before: str = "", after: str = "") -> None:
            patches.enter_context(_around(points, owner, name, before=before, after=after))

        around(FakeDecoder, "read", before="decode")
        around(Tensor, "backward", after="backward")
        around(torch.optim.AdamW, "step", before="step", after="stepped")
        around(RetrievalObjective, "evaluate", before="validation", after="validated")
        forward, on_update_start = RetrievalObjective.forward, RetrievalObjective.on_update_start

        def forward_with_faults(task: RetrievalObjective, batch: Any) -> dict[str, Tensor]:
            action = points.reach("forward")
            losses = forward(task, batch)
            if action == "nan":
                losses["loss"] = losses["loss"] * float("nan")
            elif action == "inf gradient":
                losses["loss"].register_hook(lambda gradient: gradient * float("inf"))
            return losses

        def begin_with_faults(task: RetrievalObjective, step: int) -> None:
            points.on_update_start(step)
            points.reach("update")
            on_update_start(task, step)

        stand_ins = {"forward": forward_with_faults, "on_update_start": begin_with_faults}
        for name, function in stand_ins.items():
            patches.enter_context(mock.patch.object(RetrievalObjective, name, function))
        for name, function in _file_functions(points).items():
            patches.enter_context(mock.patch.object(os, name, function))
        patches.enter_context(mock.patch.object(signal, "signal", _signal_function(points)))
        decoder = mock.patch("alpro.experiment.data.make_decoder", return_value=FakeDecoder())
        patches.enter_context(decoder)
        yield


def _around(points: Points, owner: Any, name: str, *, before: str, after: str) -> Any:
    original = getattr(owner, name)

    @functools.wraps(original)  # which keeps what PyTorch notes on an optimizer's step
    def wrapped(*arguments: Any, **options: Any) -> Any:
        if before:
            points.reach(before)
        value = original(*arguments, **options)
        if after:
            points.reach(after)
        return value

    return mock.patch.object(owner, name, wrapped)


def _signal_function(points: Points) -> Callable[..., Any]:
    """Stand-in for ``signal.signal``, which has SIGTERM noted before it is dealt with."""
    original = signal.signal

    def signal_noted(number: int, handler: Any) -> Any:
        if number != signal.SIGTERM or not callable(handler):
            return original(number, handler)

        def noting(*arguments: Any) -> None:
            points.note_termination()
            handler(*arguments)

        return original(number, noting)

    return signal_noted


def _file_functions(points: Points) -> dict[str, Callable[..., None]]:
    """Stand-ins for functions of ``os`` through which a file gets to the disk and to its name."""
    fsync, link, replace = os.fsync, os.link, os.replace

    def fsync_with_faults(file: Any) -> None:
        number = file if isinstance(file, int) else file.fileno()
        path = Path(os.readlink(f"/proc/self/fd/{number}"))
        kind = "" if path.is_dir() else _kind(path)
        if kind:
            points.reach(f"bytes of {kind}", path)
        fsync(file)
        if kind:
            points.reach(f"written {kind}")

    def link_with_faults(source: Any, target: Any, **options: Any) -> None:
        link(source, target, **options)
        if _kind(Path(target)) == "restore":
            points.reach("linked restore")

    def replace_with_faults(source: Any, target: Any, **options: Any) -> None:
        replace(source, target, **options)
        kind = _kind(Path(target))
        if kind and "backup" not in Path(target).name:
            points.reach(f"renamed {kind}")

    return {"fsync": fsync_with_faults, "link": link_with_faults, "replace": replace_with_faults}


def _kind(path: Path) -> str:
    return next((kind for kind, part in WRITTEN.items() if part in path.name), "")
