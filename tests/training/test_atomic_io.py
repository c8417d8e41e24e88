from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from alpro.errors import RunError
from alpro.training.atomic_io import append_lines, keep_lines, write_atomically, write_json
from tests.training.disks import FULL_DEVICE, largest_file

VERSIONS = (b"one" * 99, b"two" * 99, b"three" * 99)


def write_content(path: Path, *, content: bytes) -> None:
    """Write a file in two halves, the first of which gets to the disk before the other."""
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])
        file.flush()
        os.fsync(file.fileno())
        file.write(content[len(content) // 2 :])


def save(root: Path, content: bytes) -> None:
    write = partial(write_content, content=content)
    write_atomically(root / "file", write, backup=root / "backup")


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def no_links(*_: object) -> None:
    raise OSError(errno.EPERM, "no hard links here")


@pytest.fixture(params=[True, False], ids=["links", "no links"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the file system has hard links."""
    if not request.param:
        monkeypatch.setattr("os.link", no_links)
    return bool(request.param)


@pytest.mark.usefixtures("links")
def test_the_former_version_becomes_the_backup(tmp_path: Path) -> None:
    for content in VERSIONS:
        save(tmp_path / "deep", content)
    assert (tmp_path / "deep/file").read_bytes() == VERSIONS[2]
    assert (tmp_path / "deep/backup").read_bytes() == VERSIONS[1]
    assert names(tmp_path / "deep") == {"file", "backup"}


def test_bytes_are_on_the_disk_before_a_name_is_and_the_name_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(number: int) -> None:
        fsync(number)
        done.append(("fsync", os.path.basename(os.readlink(f"/proc/self/fd/{number}"))))

    def noted_replace(source: Path, target: Path) -> None:
        replace(source, target)
        done.append(("replace", target.name))

    monkeypatch.setattr("os.fsync", noted_fsync)
    monkeypatch.setattr("os.replace", noted_replace)
    for _ in range(2):
        write_atomically(tmp_path / "file", lambda x: x.touch(), backup=tmp_path / "backup")
    first = [("fsync", ".file.tmp"), ("replace", "file"), ("fsync", tmp_path.name)]
    backup = [("replace", "backup"), ("fsync", tmp_path.name)]
    assert done == [*first, first[0], *backup, *first[1:]]


def was_killed(work: Callable[[], None], *, at: int) -> bool:
    """Do work in a process that is killed where it asks the system for the n-th time."""
    process = os.fork()
    if process == 0:
        calls = count()

        def watched(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                if next(calls) == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return call

        for name in ("fsync", "link", "mkdir", "open", "replace", "unlink"):
            setattr(os, name, watched(getattr(os, name)))
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


def test_after_a_kill_at_any_moment_a_whole_version_is_there(tmp_path: Path, links: bool) -> None:
    moments = 0
    for moment in count():
        root = tmp_path / str(moment)
        for content in VERSIONS[:2]:
            save(root, content)
        if not was_killed(partial(save, root, VERSIONS[2]), at=moment):
            break
        left = [path.read_bytes() for path in (root / "file", root / "backup") if path.exists()]
        assert left[0] in VERSIONS[1:]
        assert set(left) <= set(VERSIONS)
        assert not links or (root / "file").exists()
        for content in VERSIONS[1:]:  # the run that follows
            save(root, content)
            save(root, content)
        assert (root / "file").read_bytes() == (root / "backup").read_bytes() == VERSIONS[2]
        assert names(root) == {"file", "backup"}
        moments += 1
    assert moments >= 6
    assert (root / "file").read_bytes() == VERSIONS[2]


def test_a_link_that_was_made_before_a_kill_is_no_obstacle(tmp_path: Path) -> None:
    save(tmp_path, VERSIONS[0])
    os.link(tmp_path / "file", tmp_path / "backup")
    os.link(tmp_path / "file", tmp_path / ".backup.tmp")
    save(tmp_path, VERSIONS[1])
    assert (tmp_path / "backup").read_bytes() == VERSIONS[0]
    assert names(tmp_path) == {"file", "backup"}


@pytest.mark.parametrize("failure", [OSError("broken"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, failure: BaseException) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("ne")
        raise failure

    with pytest.raises(type(failure)):
        write_atomically(path, fail, backup=tmp_path / "backup")
    assert path.read_text() == "old"
    assert names(tmp_path) == {"file"}


@pytest.mark.parametrize(
    ("number", "problem", "remedy"),
    [
        (errno.ENOSPC, "No space left on device", "Free some space; the same command"),
        (errno.EDQUOT, "Disk quota exceeded", "ask for a larger quota; the same command"),
        (errno.EFBIG, "File too large", "(ulimit -f), or use another file system; the same"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_ends_the_run_with_what_helps(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    problem: str,
    remedy: str,
    call: str,
) -> None:
    save(tmp_path, VERSIONS[0])

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1234})())
    monkeypatch.setattr(f"os.{call}", fail)
    write = partial(write_content, content=VERSIONS[1])
    with pytest.raises(RunError) as caught:
        write_atomically(tmp_path / "file", write, num_bytes=56789)
    message = str(caught.value)
    assert message.startswith(
        f"{tmp_path / 'file'}: cannot be written: {problem}. 1,234 bytes are free there, the file "
        "needs at least 56,789.\n"
    )
    assert remedy in message
    assert "(without --overwrite 1) continues" in message
    assert (tmp_path / "file").read_bytes() == VERSIONS[0]
    assert names(tmp_path) == {"file"}


def test_a_folder_that_cannot_be_synced_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync
    folders: list[int] = []

    def fsync_files_only(number: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{number}"):
            folders.append(number)
            raise OSError(errno.EINVAL, "not a folder")
        fsync(number)

    monkeypatch.setattr("os.fsync", fsync_files_only)
    save(tmp_path, VERSIONS[0])
    assert folders
    assert (tmp_path / "file").read_bytes() == VERSIONS[0]


def test_a_file_that_may_not_grow_ends_the_run(tmp_path: Path) -> None:
    save(tmp_path, VERSIONS[0])
    with largest_file(100_000), pytest.raises(RunError, match="file: cannot be written: File too"):
        save(tmp_path, bytes(200_000))
    assert (tmp_path / "file").read_bytes() == VERSIONS[0]
    assert names(tmp_path) == {"file"}


def test_json_is_written_readable(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"caption": "größer", "list": [1]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"caption": "größer", "list": [1]}
    assert "größer" in text


def test_lines_are_appended(tmp_path: Path) -> None:
    append_lines(tmp_path / "log/lines", [])
    assert (tmp_path / "log/lines").read_text() == ""
    append_lines(tmp_path / "log/lines", ["eins", "größer"])
    append_lines(tmp_path / "log/lines", ["drei"])
    assert (tmp_path / "log/lines").read_text(encoding="utf-8") == "eins\ngrößer\ndrei\n"


def test_lines_on_a_full_disk_end_the_run() -> None:
    problem = f"^{FULL_DEVICE}: cannot be written: No space left on device"
    with pytest.raises(RunError, match=problem):
        append_lines(FULL_DEVICE, ["line"])


@pytest.mark.parametrize(("limit", "kept"), [(0, 0), (1, 1), (2, 2), (9, 2)])
def test_lines_beyond_a_number_are_dropped_and_one_cut_short(
    tmp_path: Path, limit: int, kept: int
) -> None:
    lines = ["eins\u2028", "zwei", "größer"]
    path = tmp_path / "lines"
    path.write_bytes("\n".join(lines).encode()[:-4])  # within the last line's ß
    assert keep_lines(path, limit) == kept
    assert path.read_text(encoding="utf-8") == "".join(f"{line}\n" for line in lines[:kept])
    assert names(tmp_path) == {"lines"}


def test_where_no_line_is_to_be_dropped_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    assert keep_lines(path, 3) == 0
    assert not path.exists()
    path.write_text("a\nb\n")
    before = path.stat().st_ino
    assert keep_lines(path, 2) == 2
    assert path.stat().st_ino == before
