from __future__ import annotations

import errno
import logging
import os
import threading
from pathlib import Path

import pytest

from alpro.training.reporting import TensorBoard

pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def shown(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows of a folder's event files: curve -> step -> value."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        name: {point.step: point.value for point in events.Scalars(name)}
        for name in events.Tags()["scalars"]
    }


def test_a_resumed_run_hides_what_it_does_again(tmp_path: Path) -> None:
    for first, values in ((0, (1.0, 2.0, 3.0)), (2, (20.0, 30.0))):
        curves = TensorBoard(tmp_path, purge_step=first)
        for step, value in enumerate(values, start=first):
            curves.add("train", {"loss": value}, step=step)
        curves.close()
    assert shown(tmp_path) == {"train/loss": {0: 1.0, 1: 2.0, 2: 20.0, 3: 30.0}}


def test_flushed_scalars_survive_a_kill(tmp_path: Path) -> None:
    curves = TensorBoard(tmp_path, purge_step=0)
    curves.add("valid", {"r1": 0.5}, step=4)
    curves.flush()
    assert shown(tmp_path) == {"valid/r1": {4: 0.5}}
    curves.close()


@pytest.fixture
def raised(monkeypatch: pytest.MonkeyPatch) -> list[threading.ExceptHookArgs]:
    """Errors that end threads."""
    errors: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr("threading.excepthook", errors.append)
    return errors


@pytest.mark.parametrize("record", [1, 4])
def test_on_a_full_disk_there_is_one_warning_and_nothing_else(
    tmp_path: Path,
    record: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    raised: list[threading.ExceptHookArgs],
) -> None:
    module = "tensorboard.summary.writer.record_writer"
    record_writer = pytest.importorskip(module).RecordWriter
    original, written = record_writer.write, []

    def write(self: object, data: bytes) -> None:
        written.append(data)
        if len(written) >= record:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self, data)

    monkeypatch.setattr(record_writer, "write", write)
    with caplog.at_level(logging.WARNING):
        curves = TensorBoard(tmp_path, purge_step=0)
        for step in range(50):
            curves.add("train", {"loss": 1.0, "lr": 0.1}, step=step)
            curves.flush()
        curves.close()
    assert [entry.getMessage() for entry in caplog.records] == [
        "the TensorBoard file cannot be written (No space left on device); metrics.jsonl has all "
        "numbers"
    ]
    assert raised == []


def test_errors_of_other_threads_reach_the_former_hook(
    tmp_path: Path, raised: list[threading.ExceptHookArgs]
) -> None:
    def fail() -> None:
        raise OSError("of another kind")

    hook = threading.excepthook
    curves = TensorBoard(tmp_path, purge_step=0)
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    curves.close()
    assert [str(error.exc_value) for error in raised] == ["of another kind"]
    assert threading.excepthook is hook


def test_a_folder_whose_name_is_not_utf8_gets_no_file_and_is_no_reason_to_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    curves = TensorBoard(tmp_path / os.fsdecode(b"caf\xe9"), purge_step=0)
    curves.add("train", {"loss": 1.0}, step=1)
    curves.close()
    assert caplog.text.count("the TensorBoard file cannot be written") == 1


@pytest.mark.parametrize("error", [TypeError("Descriptors"), AttributeError("np.string_")])
def test_packages_that_do_not_fit_tensorboard_cost_the_curves_only(
    tmp_path: Path,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", fail)
    curves = TensorBoard(tmp_path, purge_step=0)
    for step in range(2):
        curves.add("train", {"loss": 1.0}, step=step)
    curves.flush()
    curves.close()
    (record,) = caplog.records
    assert f"({type(error).__name__}: {error}); metrics.jsonl has all" in record.getMessage()
