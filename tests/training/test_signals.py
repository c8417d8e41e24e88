from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from alpro.errors import TerminatedError
from alpro.launchers import STOP_SIGNALS, noticing_termination
from alpro.training.objective import Objective
from alpro.training.trainer import HOW_TO_CONTINUE
from tests.training.toys import (
    KilledError,
    ToyBatch,
    assert_same_run,
    kill_at_batch,
    make_plan,
    metric_lines,
    toy_batch,
    train,
)


def send_sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_is_noted_and_ends_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with noticing_termination() as notice:
        assert not notice.has_come
        for _ in range(3):  # a launcher passes on what its whole process group has got
            send_sigterm()
        assert notice.has_come
    assert signal.getsignal(signal.SIGTERM) == before
    with noticing_termination() as notice:
        assert not notice.has_come


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_other_ways_to_ask_a_run_to_end_are_noted_by_name(number: signal.Signals) -> None:
    with noticing_termination() as notice:
        os.kill(os.getpid(), number)
        assert notice.has_come
        assert notice.name == number.name


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with noticing_termination() as notice:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not notice.has_come
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_handler_of_before_comes_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), noticing_termination():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) == before


def test_other_threads_notice_nothing() -> None:
    noticed: list[bool] = []

    def work() -> None:
        with noticing_termination() as notice:
            noticed.append(notice.has_come)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert noticed == [False]


def sigterm_at_batch(fatal: int) -> Callable[[int], ToyBatch]:
    """Batches as usual; SIGTERM comes with one of them."""

    def batch(number: int) -> ToyBatch:
        if number == fatal:
            send_sigterm()
        return toy_batch(number)

    return batch


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("update", [1, 3, 4, 7])
def test_a_run_stops_after_the_update_and_continues_bit_for_bit(
    tmp_path: Path, update: int, accumulation: int
) -> None:
    """Updates 3 and 7 are followed by a validation, which waits for the run to go on."""
    plan = make_plan(accumulation_steps=accumulation)
    train(tmp_path / "whole", plan=plan)
    batch = sigterm_at_batch((update - 1) * accumulation)  # the update's first
    with pytest.raises(TerminatedError) as caught:
        train(tmp_path / "stopped", plan=plan, batch=batch)
    assert str(caught.value) == f"SIGTERM came, update {update} is saved; {HOW_TO_CONTINUE}"
    position = torch.load(tmp_path / "stopped/restore.pt", weights_only=True)["position"]
    assert position["step"] == update
    assert position["is_complete"] == (update not in (3, 7))
    validations = [n["step"] for n in metric_lines(tmp_path / "stopped") if n["split"] == "valid"]
    assert validations == [0, 3][: 1 + (update > 3)] + [6] * (update > 6)
    train(tmp_path / "stopped", plan=plan)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_a_run_that_stopped_after_its_last_update_only_validates(tmp_path: Path) -> None:
    with pytest.raises(TerminatedError):
        train(tmp_path, plan=make_plan(), batch=sigterm_at_batch(6))
    train(tmp_path, plan=make_plan(), batch=kill_at_batch(7))
    assert metric_lines(tmp_path)[-1]["split"] == "valid"
    assert (tmp_path / "ckpt/model_step_7.pt").exists()


def test_sigterm_during_the_first_validation_stops_the_run_after_an_update(tmp_path: Path) -> None:
    def validate(_: object) -> dict[str, float]:
        send_sigterm()
        return {"score": 0.0}

    with pytest.raises(TerminatedError, match="update 1 is saved"):
        train(tmp_path, plan=make_plan(), validate=validate)


def test_sigterm_during_a_validation_stops_the_run_after_it(tmp_path: Path) -> None:
    validations = iter(range(9))

    def validate(task: Objective) -> dict[str, float]:
        if next(validations) == 1:
            send_sigterm()
        return task.evaluate(toy_batch(1000))

    train(tmp_path / "whole", plan=make_plan())
    with pytest.raises(TerminatedError, match="update 3 is saved"):
        train(tmp_path / "stopped", plan=make_plan(), validate=validate)
    position = torch.load(tmp_path / "stopped/restore.pt", weights_only=True)["position"]
    assert position["is_complete"]
    train(tmp_path / "stopped", plan=make_plan())
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_a_pending_validation_runs_after_updates_are_renumbered(tmp_path: Path) -> None:
    with pytest.raises(TerminatedError, match="update 3 is saved"):
        train(tmp_path, plan=make_plan(), batch=sigterm_at_batch(2))
    plan = make_plan(num_train_steps=14, valid_steps=5)  # as with half as many processes
    with pytest.raises(KilledError):
        train(tmp_path, plan=plan, batch=kill_at_batch(3))
    events = [(line["step"], line["split"]) for line in metric_lines(tmp_path)]
    assert events[-2:] == [(3, "train"), (6, "valid")]
    assert (tmp_path / "ckpt/model_step_6.pt").exists()
