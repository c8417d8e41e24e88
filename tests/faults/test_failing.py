"""A rank that fails or hangs, and numbers that are not finite."""

from __future__ import annotations

import re
import shutil
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest
import torch

from alpro.distributed import watchdog
from tests.distributed.jobs import both_engines
from tests.faults.conftest import AllRuns, said_by
from tests.faults.forked import PATIENCE
from tests.faults.points import STRUCK, Fault, Points
from tests.training.toys import metric_lines

LONG = 1e6  # seconds that pass at once for processes that stand still


@pytest.mark.parametrize(("point", "rank"), [("validation", 1), ("written restore", 0)])
def test_an_exception_on_one_rank_ends_all_at_once(runs: AllRuns, point: str, rank: int) -> None:
    ended = runs.of(2).run(f"{point} fails", Fault(point=point, action="raise", rank=rank))
    last = ended[rank].said.splitlines()[-2:]
    assert last == [
        f"tests.faults.points.FaultError: made to fail at the point '{point}'",
        f"(rank {rank})",
    ]
    for other, one in enumerate(ended):
        assert one.code != 0
        if other != rank:
            assert "Traceback" not in one.said, said_by(ended)
            assert one.place > ended[rank].place
            assert not one.was_made_to


def test_a_rank_that_fails_while_others_compute_is_the_one_reported(runs: AllRuns) -> None:
    """They are asked to end before they find out that they have lost it."""
    faults = [
        Fault(point="forward", action="raise", rank=1, time=2),
        Fault(point="forward", action="await SIGTERM", rank=0, time=2),
    ]
    ended = runs.of(2).run("fails early", *faults)
    assert ended[1].code == 1
    assert ended[1].said.endswith("\n(rank 1)\n")
    assert ended[0].code == 1
    assert "Traceback" not in ended[0].said
    assert ended[0].place == 1


class Clock:
    """The watchdog's: for a process that hangs, or waits for it, time passes at once."""

    def __init__(self, folder: Path, *, size: int, waits_in: str) -> None:
        self._folder = folder
        self._size = size
        self._waits_in = waits_in

    def monotonic(self) -> float:
        """Seconds, from which processes that get on notice nothing."""
        return time.monotonic() + LONG * (self._is_update_of_hang() and self._stands_still())

    def _is_update_of_hang(self) -> bool:
        """In it, rank 0's first exchange is the one that does not end."""
        updates = self._folder / "updates0"
        is_update = updates.exists() and "2" in updates.read_text().split()
        return is_update and (self._folder / STRUCK).exists()

    def _stands_still(self) -> bool:
        frame = sys._current_frames()[threading.main_thread().ident or 0]  # noqa: SLF001
        codes = [one.f_code for one, _ in traceback.walk_stack(frame)]
        hangs = any(code is Points._happen.__code__ for code in codes)  # noqa: SLF001
        return hangs or any(Path(code.co_filename).name == self._waits_in for code in codes)

    def sleep(self, _seconds: float) -> None:
        """Grace for the other ranks: until all have told where they stand."""
        paths = [self._folder / f"said{rank}.txt" for rank in range(self._size)]
        until = time.monotonic() + PATIENCE
        while not all("hang_timeout" in path.read_text() for path in paths):
            assert time.monotonic() < until
            time.sleep(0.01)


@both_engines
def test_a_rank_that_hangs_is_noticed_and_all_print_where_they_stand(
    runs: AllRuns, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    pair, name = runs.of(2), f"hangs under {backend}"
    waits_in = {"torch": "torch_distributed.py", "horovod": "horovod.py"}[backend]
    clock = Clock(pair.folder_of_starts(name), size=2, waits_in=waits_in)
    monkeypatch.setattr(watchdog, "time", clock)
    monkeypatch.setattr(watchdog, "_LONGEST_PAUSE", 0.1)
    fault = Fault(point="forward", action="hang", rank=1, time=3)
    ended = pair.run(name, fault, flags=("--hang_timeout", "1000"), backend=backend)
    for rank, one in enumerate(ended):
        assert one.code != 0
        assert f"error (rank {rank}): no progress for 1000 s (hang_timeout)" in one.said
        assert "trainer.py" in one.said
    assert 1 in [one.code for one in ended]
    assert "it waits for other processes" in ended[0].said
    assert re.search(rf"File .*{re.escape(waits_in)}.* in \w+", ended[0].said)
    assert "it does not wait for other processes" in ended[1].said
    assert re.search(r"File .*points\.py.* in forward_with_faults", ended[1].said)


@pytest.mark.parametrize(
    ("action", "what", "at_fault"),
    # The backward of the gathered embeddings takes one rank's infinite gradient to all.
    [("nan", "loss", [1]), ("inf gradient", "gradient", [0, 1])],
)
def test_numbers_that_are_not_finite_stop_the_run_and_leave_the_batch(
    runs: AllRuns, action: str, what: str, at_fault: list[int]
) -> None:
    pair, name = runs.of(2), f"{what} stops"
    ended = pair.run(name, Fault(point="forward", action=action, rank=1, time=8))
    teller = at_fault[0]
    assert [one.code == 1 for one in ended] == [rank == teller for rank in (0, 1)], said_by(ended)
    said = ended[teller].said
    assert f"error (rank {teller}): update 4: the {what} is not finite\n" in said
    assert "--on_nonfinite skip" in said
    assert all("Traceback" not in one.said for one in ended)
    named = re.findall(r"  rank (\d): loss .*; its batch is of (.*)", said)
    assert [int(rank) for rank, _ in named] == at_fault
    stored = {path.name: path for path in (pair.root / name).rglob("step_4_*.pt")}
    for rank, names in named:
        state = torch.load(stored.pop(f"step_4_rank_{rank}.pt"), weights_only=True)
        assert [batch["video_ids"] for batch in state["batches"]] == in_twos(names.split(", "))
    (model,) = stored.values()
    assert_is_the_model_before(model, pair.root / name)
    shutil.rmtree(model.parent)
    pair.continue_to_the_end(name)


def in_twos(names: list[str]) -> list[list[str]]:
    return [names[start : start + 2] for start in range(0, len(names), 2)]


def assert_is_the_model_before(path: Path, root: Path) -> None:
    """It has gone on since the checkpoint of update 2, and has learnt nothing infinite."""
    model = torch.load(path, weights_only=True)
    before = torch.load(root / "ckpt/model_step_2.pt", weights_only=True)
    assert model.keys() == before.keys()
    assert any(not torch.equal(model[name], before[name]) for name in model)
    assert all(value.isfinite().all() for value in model.values())


@pytest.mark.parametrize(("action", "size"), [("nan", 2), ("inf gradient", 2), ("nan", 1)])
def test_numbers_that_are_not_finite_may_be_skipped_and_are_counted(
    runs: AllRuns, action: str, size: int
) -> None:
    job, name = runs.of(size), f"{action} skipped by {size}"
    fault = Fault(point="forward", action=action, rank=size - 1, time=5)
    ended = job.run(name, fault, flags=("--on_nonfinite", "skip"))
    assert [one.code for one in ended] == [0] * size, said_by(ended)
    assert re.search(r"WARNING .*: skipped update 3: the (loss|gradient) is not", ended[0].said)
    lines = [line for line in metric_lines(job.root / name) if line["split"] == "train"]
    assert [line.get("skipped_updates") for line in lines] == [None, None, 1, 1, 1, 1]
    assert lines[2]["grad_norm"] is None
    weights = torch.load(job.root / name / "ckpt/model_step_last.pt", weights_only=True)
    assert all(value.isfinite().all() for value in weights.values())
