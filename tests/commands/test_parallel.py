from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from alpro.commands.parallel import Failure, Journal, run_isolated
from alpro.datasets.decoding import VideoReadError
from alpro.errors import InputError, ScarcityError
from tests.datasets import misbehaving


def work(item: str) -> str:
    """Stands for reading a file of this name."""
    match item:
        case "hang":
            misbehaving.hang()
        case "abort":
            misbehaving.abort()
        case "unreadable":
            raise VideoReadError("no frames")
        case "absent":
            raise FileNotFoundError(2, "No such file", "absent")
        case "many files":
            raise OSError(errno.EMFILE, "Too many open files")
        case "mistake":
            raise ZeroDivisionError
        case "pid":
            return str(os.getpid())
    return item.upper()


def test_every_item_comes_back_with_its_outcome() -> None:
    items = ["a", "abort", "b", "unreadable", "absent", "c", "d"]
    outcomes = dict(run_isolated(work, items, num_workers=2, seconds=60, megabytes=512))
    assert outcomes == {
        **{letter: letter.upper() for letter in "abcd"},
        "unreadable": Failure("no frames", cut_off=False),
        "absent": Failure("[Errno 2] No such file: 'absent'", cut_off=False),
        "abort": Failure("its process ended by SIGABRT: what(): of no use", cut_off=True),
    }


def test_no_item_is_blamed_for_a_lack_of_open_files() -> None:
    with pytest.raises(ScarcityError, match=r"^Too many open files. Raise the limit \(ulimit -n"):
        list(run_isolated(work, ["a", "many files", "b"], num_workers=1))


def test_items_that_hang_are_given_up() -> None:
    outcomes = list(run_isolated(work, ["hang", "hang"], num_workers=1, seconds=0.2))
    assert outcomes == [("hang", Failure("took longer than 0.2 seconds", cut_off=True))] * 2


def test_no_items_give_no_results() -> None:
    assert list(run_isolated(work, [], num_workers=3)) == []


def test_workers_keep_their_processes_and_items_are_taken_as_needed() -> None:
    taken = []

    def items() -> Iterator[str]:
        for _ in range(1000):
            taken.append(1)
            yield "pid"

    results = run_isolated(work, items(), num_workers=2)
    pids = {next(results)[1] for _ in range(10)}
    assert str(os.getpid()) not in pids
    assert len(pids) <= 2
    results.close()
    assert len(taken) < 20


def test_a_bug_of_the_program_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(run_isolated(work, ["a", "mistake", "hang"], num_workers=2))


def test_errors_of_the_iterator_of_items_are_raised() -> None:
    items = (1 // number for number in [1, 0])
    with pytest.raises(ZeroDivisionError):
        list(run_isolated(str, items, num_workers=1))


def interrupt_or_hang(item: str) -> None:
    if item == "interrupt":
        os.kill(os.getppid(), signal.SIGINT)
    misbehaving.hang()


def test_an_interrupt_ends_all_workers() -> None:
    with pytest.raises(KeyboardInterrupt):
        list(run_isolated(interrupt_or_hang, ["hang", "interrupt", "hang"], num_workers=2))


def test_a_journal_resumes_after_its_last_line(tmp_path: Path) -> None:
    path = tmp_path / "new" / "journal.jsonl"
    journal = Journal(path)
    assert journal.done == {}
    journal.add("a\u2028", {"frames": 3})
    journal.add("b\udcff", None)
    with path.open("a") as file:
        file.write(json.dumps({"key": "c", "value": 1})[:-2])
    again = Journal(path)
    assert again.done == {"a\u2028": {"frames": 3}, "b\udcff": None}
    again.add("c", [2])
    assert Journal(path).done == again.done == {"a\u2028": {"frames": 3}, "b\udcff": None, "c": [2]}


@pytest.mark.parametrize("line", ["no JSON", "[]", '{"key": "a"}', '{"key": [], "value": 1}'])
def test_a_file_that_is_not_a_journal_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).add("a", 1)
    with path.open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(InputError, match=r"journal.jsonl: line 2 .* start over"):
        Journal(path)
