"""What is in the way of a run's files is found before its work."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from alpro.errors import InputError, RunError
from alpro.training.run_directory import APPENDED, WRITTEN_IN_TRAINING
from alpro.training.writable import check_output_file, check_output_folder, check_space
from tests.training.disks import largest_file

RESULTS = "results_test/step_best_1_mean/scores.json"
KINDS = ("file", "folder", "pipe", "socket", "device", "dangling link")


def check(root: Path) -> None:
    check_output_folder(root, patterns=[*WRITTEN_IN_TRAINING, RESULTS], appended=APPENDED)


def place(path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put something in the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        monkeypatch.chdir(path.parent)  # the path of a socket may not be long
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    else:
        path.symlink_to("/dev/null" if kind == "device" else path.parent / "nowhere")


def refusal(root: Path) -> str:
    with pytest.raises(InputError) as caught:
        check(root)
    return str(caught.value)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "folder"])
@pytest.mark.parametrize("name", ["log", "ckpt", "nonfinite", "results_test", ""])
def test_a_path_that_is_not_a_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    path = tmp_path / "run" / name
    place(path, kind, monkeypatch)
    words = "is a link to a folder that does not exist" if "link" in kind else "is not a folder"
    assert f": {path} {words}." in refusal(tmp_path / "run")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "file"])
@pytest.mark.parametrize(
    "name",
    [
        *("log/args.json", "log/metrics.jsonl", "log/run.lock", "log/.args.json.tmp"),
        *("log/quarantine.jsonl", "ckpt/model_step_best.pt", "ckpt/model_step_17.pt"),
        *("restore.pt", RESULTS),
    ],
)
def test_a_path_that_is_not_a_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    path = tmp_path / "run" / name
    place(path, kind, monkeypatch)
    noun = f"a {kind}, not a file" if "link" not in kind else "a link to a file that does not exist"
    assert f": {path} is {noun}." in refusal(tmp_path / "run")


def test_a_folder_that_can_be_written_to_is_left_as_it_is(tmp_path: Path) -> None:
    check(tmp_path / "new/run")
    assert list(tmp_path.iterdir()) == []
    for name in ("log/args.json", "log/log.txt", "restore.pt"):
        place(tmp_path / "old" / name, "file", pytest.MonkeyPatch())
    before = sorted(tmp_path.rglob("*"))
    check(tmp_path / "old")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_to_a_folder_may_be_written_through(tmp_path: Path) -> None:
    (tmp_path / "large_disk").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/ckpt").symlink_to(tmp_path / "large_disk")
    check(tmp_path / "run")


@pytest.mark.parametrize("name", ["a" * 300, "a" * 300 + "/run", "b/" * 3000 + "run", "é" * 200])
def test_names_that_are_too_long(tmp_path: Path, name: str) -> None:
    message = refusal(tmp_path / name)
    assert "File name too long" in message
    assert len(message) < 800


def test_a_name_of_results_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"results_a+.*cannot be made \(File name too long\)"):
        check_output_folder(tmp_path, patterns=[f"results_{'a' * 249}/step_best/scores.json"])


@pytest.mark.parametrize("folder", ["/proc", "/proc/self/fd", "/dev/null", "/proc/x/y"])
def test_places_that_take_no_files(folder: str) -> None:
    assert f"output_dir: {folder}" in refusal(Path(folder))


def test_a_file_that_may_not_be_appended_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(tmp_path / "log/metrics.jsonl", "file", monkeypatch)
    place(tmp_path / "log/args.json", "file", monkeypatch)  # replaced, so its folder counts
    monkeypatch.setattr("os.access", lambda path, _: Path(path).suffix != ".jsonl")
    assert f"{tmp_path / 'log/metrics.jsonl'} cannot be written to" in refusal(tmp_path)


def test_a_full_disk_is_detected_unless_nothing_will_be_written(tmp_path: Path) -> None:
    with largest_file(100):
        with pytest.raises(RunError, match=f"^{tmp_path}/run: cannot be written: File too large"):
            check(tmp_path / "run")
        check_output_folder(tmp_path / "run", tries=False)


@pytest.mark.parametrize(
    ("free", "needed", "files", "told"),
    [
        (1000, 1001, 99, "1,000 bytes are free there, the first .* need at least 1,001"),
        (1000, 1000, 31, r"only 31 more files can be made there \(inodes\)"),
    ],
)
def test_too_little_space_for_the_first_files_is_detected(
    monkeypatch: pytest.MonkeyPatch, free: int, needed: int, files: int, told: str
) -> None:
    monkeypatch.setattr("alpro.training.writable.free_bytes", lambda _: free)
    monkeypatch.setattr("alpro.training.writable.free_files", lambda _: files)
    with pytest.raises(RunError, match=rf"^output_dir: run: {told}\.\nFree some space"):
        check_space(Path("run"), num_bytes=needed)


@pytest.mark.parametrize(("free", "files"), [(0, None), (1000, 0), (1000, 32), (1000, None)])
def test_unknown_space_is_not_judged(
    monkeypatch: pytest.MonkeyPatch, free: int, files: int | None
) -> None:
    monkeypatch.setattr("alpro.training.writable.free_bytes", lambda _: free)
    monkeypatch.setattr("alpro.training.writable.free_files", lambda _: files)
    check_space(Path("run"), num_bytes=1000)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("folder", "folder is a folder, not a file"),
        ("/", "/ is a folder, not a file"),
        ("file/page.html", "file is not a folder"),
        ("a" * 300, "cannot be made .File name too long"),
    ],
)
def test_a_file_that_cannot_be_made(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=rf"^cannot write .*: .*{reason}.*; give another --page$"):
        check_output_file(tmp_path / name, named_by="--page")
    check_output_file(tmp_path / "file", named_by="--page")
    check_output_file(tmp_path / "new/page.html", named_by="--page")
    assert not (tmp_path / "new").exists()
