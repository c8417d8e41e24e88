"""One output folder, one job."""

from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from alpro.errors import InputError
from alpro.training.run_directory import LOCK, RunDirectory
from alpro.training.writable import RunLock
from tests.training.disks import largest_file

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys
from pathlib import Path
from tests.training.test_run_lock import claim
output = claim(Path(sys.argv[1]))
print("claimed", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alpro.training.writable.PATIENCE", 0.0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "run"


@contextmanager
def another_process(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Context in which a process of another job has claimed a folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        try:
            yield process
        finally:
            process.kill()


def claim(root: Path, *, overwrite: bool = False, rank: int = 0) -> RunDirectory:
    (root.parent / "model.json").write_text("{}")
    output = RunDirectory(root, rank=rank)
    arguments = {
        **{"model_config": str(root.parent / "model.json"), "n_gpu": 1},
        "architecture": {"model_config": {}},
    }
    output.claim(arguments, may_differ={"model_config"}, overwrite=overwrite)
    return output


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_another_process_writes_to_is_refused_and_left_alone(
    root: Path, overwrite: bool
) -> None:
    claim(root)
    gc.collect()
    with another_process(root) as process:
        (root / "restore.pt").write_text("state")
        (root / ".restore.pt.tmp").write_text("what it is writing")
        with pytest.raises(InputError) as caught:
            claim(root, overwrite=overwrite)
        assert str(caught.value) == (
            f"output_dir: another process writes to {root}. Wait until it ends, or name another "
            "output_dir."
        )
        assert (root / "restore.pt").read_text() == "state"
        assert (root / ".restore.pt.tmp").exists()
        claim(root, rank=1)  # rank 0 holds the lock for all
        claim(root.with_name("other"))
        process.send_signal(signal.SIGKILL)
        process.wait()
        claim(root, overwrite=overwrite)
    assert (root / "restore.pt").exists() != overwrite
    assert (root / "log/run.lock").exists()


def test_the_message_names_the_flag_of_the_folder(root: Path) -> None:
    with another_process(root), pytest.raises(InputError, match="^--output: .* another --output"):
        RunLock(root / LOCK, root=root, named_by="--output")


def test_a_process_that_is_about_to_end_is_waited_for(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("alpro.training.writable.PATIENCE", 60.0)
    claim(root)
    gc.collect()
    with another_process(root) as process:

        def end_it(_: float) -> None:
            process.kill()
            process.wait()

        monkeypatch.setattr("time.sleep", end_it)
        claim(root)
    assert caplog.messages == [f"another process writes to {root}, waiting for its end"]


def try_to_claim(root: Path) -> bool:
    """Whether another process can, which is forked."""

    def work() -> None:
        try:
            claim(root)
        except InputError:
            os._exit(1)
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    return process.exitcode == 0


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_lock_is_held_as_long_as_the_folder_object_is_there(
    root: Path, overwrite: bool
) -> None:
    output = claim(root, overwrite=overwrite)
    assert not try_to_claim(root)
    assert not try_to_claim(root)  # the end of a forked process does not give it up
    del output
    gc.collect()
    assert try_to_claim(root)


def test_runs_in_one_process_follow_each_other(root: Path) -> None:
    for overwrite in (False, True, False):
        output = claim(root, overwrite=overwrite)
        assert not try_to_claim(root)
        del output  # closing its file would give up the next one's lock
        gc.collect()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EINVAL])
def test_a_file_system_without_locks_lets_every_job_pass(
    root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.lockf", no_locks)
    claim(root)
    assert (root / "log/args.json").exists()


def test_a_folder_that_is_refused_gets_no_lock(root: Path) -> None:
    root.mkdir()
    (root / "restore.pt").touch()
    with pytest.raises(InputError, match="no log/args.json"):
        claim(root)
    assert [path.name for path in root.iterdir()] == ["restore.pt"]


def test_the_lock_takes_no_space(root: Path) -> None:
    with largest_file(10_000):
        claim(root)
    assert (root / "log/run.lock").stat().st_size == 0
