"""Disks that fill up, and restore files that are damaged."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import AllRuns, Runs, files_of, said_by
from tests.faults.points import Fault

HOW_TO_GO_ON = "the same command (without --overwrite 1) continues"
BYTES_OF_DISK = 16 << 20  # enough for all files of a run
BYTES_LEFT = 1 << 15  # on a disk that is as good as full


@pytest.mark.parametrize(("size", "kind"), [(2, "restore"), (1, "checkpoint")])
def test_a_full_disk_ends_the_run_with_one_message(runs: AllRuns, size: int, kind: str) -> None:
    job, name = runs.of(size), f"full at {kind}"
    fault = Fault(point=f"bytes of {kind}", action="full", time=2, share=0.5)
    writer, *others = ended = job.run(name, fault)
    assert writer.code == 1, said_by(ended)
    assert_says_full(writer.said)
    for one in others:
        assert one.code != 0
        assert "rror" not in one.said
    assert not list((job.root / name).rglob(".*.tmp"))
    job.continue_to_the_end(name)


def assert_says_full(said: str) -> None:
    assert "cannot be written: No space left on device" in said
    assert "bytes are free there" in said
    assert HOW_TO_GO_ON in said
    assert "Traceback" not in said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that takes few bytes; only root may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", f"size={BYTES_OF_DISK}", "tmpfs", str(folder)]
    done = mount and subprocess.run([mount, *options], capture_output=True, check=False)
    if not done or done.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_really_full(runs: AllRuns, small_disk: Path) -> None:
    alone, name = runs.of(1), "on a small disk"
    (alone.root / name).symlink_to(small_disk)
    filler = small_disk / "filler"
    alone.run(name, Fault(point="update", action="kill", time=4))
    filler.write_bytes(bytes(max(0, shutil.disk_usage(small_disk).free - BYTES_LEFT)))
    before = (small_disk / "restore.pt").read_bytes()
    (ended,) = alone.run(name)
    assert ended.code == 1, ended.said
    assert_says_full(ended.said)
    assert (small_disk / "restore.pt").read_bytes() == before
    filler.unlink()
    alone.continue_to_the_end(name)


def test_a_limit_of_a_files_size_ends_the_run_like_a_full_disk(
    runs: AllRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, name = runs.of(1), "limited"
    size = (alone.whole / "restore.pt").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit() -> None:  # of the forked process, which calls this
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
        main()

    from tasks import run_video_retrieval

    main = run_video_retrieval.main
    with monkeypatch.context() as patch:
        patch.setattr(run_video_retrieval, "main", limit)
        (ended,) = alone.run(name)
    assert ended.code == 1, ended.said
    assert "restore.pt: cannot be written: File too large" in ended.said
    assert "Traceback" not in ended.said
    assert not (alone.root / name / "restore.pt").exists()
    alone.continue_to_the_end(name)


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut short":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)


def killed(job: Runs, name: str) -> Path:
    """A run that has left the restore files of updates 2 and 4."""
    job.run(name, Fault(point="update", action="kill all", time=5, rank=0))
    assert {"restore.pt", "restore_backup.pt"} <= files_of(job.root / name)
    return job.root / name


@pytest.mark.parametrize(("size", "how"), [(1, "one bit flipped"), (2, "cut short")])
def test_a_damaged_restore_file_falls_back_to_the_previous_one_and_says_so(
    runs: AllRuns, size: int, how: str
) -> None:
    job = runs.of(size)
    root = killed(job, how)
    damage(root / "restore.pt", how)
    said = job.run(how, Fault(point="update", action="kill all", rank=0))[0].said
    assert f"{root}/restore.pt: the file is truncated or damaged; continuing from" in said
    assert "after update 2\n" in said
    (root / "restore.damaged").unlink()
    job.continue_to_the_end(how)


def test_two_damaged_restore_files_are_an_error_and_nothing_starts_from_zero(
    runs: AllRuns,
) -> None:
    pair, name = runs.of(2), "both damaged"
    root = killed(pair, name)
    for file in ("restore.pt", "restore_backup.pt"):
        damage(root / file, "cut short")
    before = {name: (root / name).read_bytes() for name in files_of(root) - {"log/log.txt"}}
    ended = pair.run(name)
    assert ended[0].code == 2
    assert ended[1].code != 0
    assert "error (rank 0): output_dir: no restore file can be read:" in ended[0].said
    assert "--overwrite 1" in ended[0].said
    assert "rror" not in ended[1].said
    assert {name: (root / name).read_bytes() for name in before} == before
