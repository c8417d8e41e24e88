"""What the tools' commands share."""

from __future__ import annotations

import argparse
import errno
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from alpro.commands.cli import (
    MAX_NUMBER,
    DefaultsShown,
    any_path_flag,
    at_most,
    exit_code_of,
    not_negative,
    open_videos_of_flag,
    path_flag,
    positive,
    run_command,
)
from alpro.commands.main import main
from alpro.errors import USER_ERROR_EXIT_CODE, InputError, RunError, printable
from alpro.training.atomic_io import full_disk_ends_run
from tests.training.disks import FULL_DEVICE

TOOLS = Path(__file__).parents[2] / "src/alpro/commands"


def raising(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


def os_error(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (InputError("--a: is wrong"), 2, "error: --a: is wrong\n"),
        (RunError("failed"), 1, "error: failed\n"),
        (os_error(errno.EACCES, "a/b"), 2, "error: a/b: Permission denied\n"),
        (os_error(errno.EISDIR, "a"), 2, "error: a: Is a directory\n"),
        (os_error(errno.ENOTDIR, "a"), 2, "error: a: Not a directory\n"),
        (os_error(errno.ENOSPC, "a"), 1, "error: a: No space left on device. Free some space.\n"),
        (os_error(errno.ENOSPC), 1, "error: No space left on device. Free some space.\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_user_errors_are_printed_as_one_line(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, told: str
) -> None:
    assert exit_code_of(raising(error)) == code
    assert capsys.readouterr().err == told


def test_bugs_of_the_program_keep_their_traceback() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        exit_code_of(raising(os_error(errno.EBADF)))


def test_an_interrupted_command_that_can_resume_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(raising(KeyboardInterrupt()), can_resume=True) == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to continue\n"


@pytest.mark.parametrize(
    ("can_resume", "told"),
    [
        (True, "; run the same command again to continue."),
        (False, "; then run the same command again."),
    ],
)
def test_a_full_disk_is_worded_for_tools(
    capsys: pytest.CaptureFixture[str], can_resume: bool, told: str
) -> None:
    def work() -> None:
        with full_disk_ends_run(FULL_DEVICE):
            FULL_DEVICE.write_bytes(b"x")

    assert exit_code_of(work, can_resume=can_resume) == 1
    message = capsys.readouterr().err
    assert "cannot be written: No space left on device" in message
    assert message.endswith(f"Free some space{told}\n")
    assert "overwrite" not in message


def test_a_full_disk_error_survives_pickling() -> None:
    with pytest.raises(RunError) as caught, full_disk_ends_run(FULL_DEVICE):
        FULL_DEVICE.write_bytes(b"x")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301


def test_a_flag_that_names_no_videos_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"^--videos: folder .*nothere not found; name a folder"):
        open_videos_of_flag(tmp_path / "nothere")
    with pytest.raises(InputError, match=r"^--source: .*notes.txt is a file, not a folder"):
        open_videos_of_flag(tmp_path / "notes.txt", flag="--source")


@pytest.mark.parametrize("kind", [positive, not_negative])
def test_a_flag_that_is_not_an_integer_is_an_error(kind: Callable[[str], int]) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="^'abc' is not an integer$"):
        kind("abc")


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        (positive, "0", "0 is not positive"),
        (positive, "-1", "-1 is below 0"),
        (not_negative, str(MAX_NUMBER + 1), f"{MAX_NUMBER + 1} is above {MAX_NUMBER}"),
        (not_negative, "9" * 400, f"{'9' * 40} is above {MAX_NUMBER}"),
        (at_most(7, lowest=2), "1", "1 is below 2"),
        (at_most(7, lowest=2), "8", "8 is above 7"),
    ],
)
def test_numbers_out_of_bounds_are_refused(
    kind: Callable[[str], int], text: str, told: str
) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"^{told}$"):
        kind(text)


def test_numbers_at_the_bounds_are_allowed() -> None:
    assert [at_most(7, lowest=2)(text) for text in "27"] == [2, 7]
    assert positive(str(MAX_NUMBER)) == MAX_NUMBER


@pytest.mark.parametrize(
    ("tool", "flags"),
    [
        ("check_data", ("--videos", "v", "--n_workers")),
        ("prepare_videos", ("--videos", "v", "--output", "o", "--n_workers")),
        ("videos_to_lmdb", ("--videos", "v", "--output", "o", "--n_workers")),
        ("extract_entities", ("--config", "c", "--n_workers")),
        ("demo_data", ("--n_workers",)),
        ("contact_sheet", ("--num_frames",)),
    ],
)
def test_numbers_beyond_any_machine_are_refused(
    tool: str, flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([tool, *flags, "1000000"])
    assert end.value.code == USER_ERROR_EXIT_CODE
    assert re.search(
        rf"argument {flags[-1]}(/--workers)?: 1000000 is above ", capsys.readouterr().err
    )


def test_help_shows_defaults_except_none_and_false() -> None:
    parser = argparse.ArgumentParser(formatter_class=DefaultsShown)
    parser.add_argument("--a", help="first")
    parser.add_argument("--b", action="store_true", help="second")
    parser.add_argument("--c", default=3, help="third")
    shown = parser.format_help()
    assert "third (default: 3)" in shown
    assert shown.count("default") == 1


def test_names_that_are_not_utf8_can_be_printed() -> None:
    assert printable(os.fsdecode(b"lat\xff1 \xc3\xa9")) == "lat\\udcff1 é"


def test_a_path_may_begin_with_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert path_flag("~/videos") == Path("/home/me/videos")
    assert path_flag("a/~") == Path("a/~")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the path is empty"),
        ("~nobody_of_this_name/a", "there is no such home folder"),
        (os.fsdecode(b"caf\xe9"), r"caf\\udce9 is not UTF-8; rename it, or pass a link to it"),
    ],
)
def test_paths_that_files_cannot_name_are_refused(text: str, reason: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=reason):
        path_flag(text)


def test_any_path_may_be_checked() -> None:
    name = os.fsdecode(b"caf\xe9")
    assert any_path_flag(name) == Path(name)


@pytest.mark.parametrize(("code", "work"), [(0, lambda: 0), (1, lambda: 1)])
def test_a_command_ends_with_its_own_exit_code(code: int, work: Callable[[], int]) -> None:
    with pytest.raises(SystemExit) as end:
        run_command(work)
    assert end.value.code == code


def test_paths_of_flags_are_read_in_one_way() -> None:
    """In them ``~`` is a home folder, and names that JSON files cannot hold are refused."""
    assert [path.name for path in TOOLS.rglob("*.py") if "type=Path" in path.read_text()] == []
