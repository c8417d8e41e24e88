from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from alpro.commands.bench.annotations import (
    LIST,
    PACKED,
    Held,
    Loaded,
    hold,
    load,
    loading_table,
    made_up_rows,
    private_memory,
    shuffled,
    workers_table,
    write_files,
)
from alpro.commands.cli import exit_code_of
from alpro.datasets.shared_rows import pack_rows
from alpro.tasks.pretraining.annotations import read_captioned_videos

ROOT = Path(__file__).parents[2]
MILLION = 1_000_000
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="asks the system for memory")


def cells_of(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def test_all_formats_hold_the_same_rows(tmp_path: Path) -> None:
    rows = list(made_up_rows(50))
    assert len({row.captions for row in rows}) == 50
    paths = write_files(tmp_path, num_rows=50)
    expected = ["jsonl", "csv"] + ["parquet"] * (find_spec("pyarrow") is not None)
    assert [path.suffix[1:] for path in paths] == expected
    for path in paths:
        assert read_captioned_videos(path).items == rows


@pytest.mark.parametrize("size", [0, 1, 2, 10, 1000])
def test_all_positions_are_read_once(size: int) -> None:
    assert sorted(shuffled(size)) == list(range(size))
    assert size < 10 or list(shuffled(size)) != list(range(size))


@linux_only
def test_loading_is_measured_in_time_and_memory(tmp_path: Path) -> None:
    path = write_files(tmp_path, num_rows=20)[0]
    loaded = load(path)
    assert loaded.kept == pack_rows(made_up_rows(20), type(next(made_up_rows(1)))).num_bytes
    assert loaded.seconds > 0
    assert loaded.peak >= 0


@linux_only
def test_private_memory_grows_by_what_is_written() -> None:
    before = private_memory()
    written = bytearray(os.urandom(1 << 20) * 32)
    assert 0.9 * len(written) < private_memory() - before < 2 * len(written)


@linux_only
def test_workers_copy_a_list_but_not_packed_rows() -> None:
    """The project's reason for packing, as numbers: of objects, most pages are written to."""
    num_rows = 100_000  # some 25 MB of objects
    code = (
        "from alpro.commands.bench.annotations import LIST, PACKED, hold\n"
        "for kept in ('', LIST, PACKED):\n"
        f"    held = hold(kept, 'fork', num_rows={num_rows}, num_workers=2)\n"
        "    print(min(one.private for one in held), max(one.private for one in held))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    numbers = [map(int, line.split()) for line in done.stdout.splitlines()]
    (_, none), (of_list, _), (_, packed) = numbers
    assert of_list - none > 10 * MILLION
    assert packed - none < 3 * MILLION


@linux_only
def test_forked_and_spawned_workers_answer() -> None:
    for kept in (LIST, PACKED):
        found = hold(kept, "spawn", num_rows=10, num_workers=1)
        assert [one.private > MILLION and one.seconds > 0 for one in found] == [True]


def test_bench_annotations_tables_match_hand_computed_ones(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(bytes(2 * MILLION))
    table = loading_table({path: Loaded(3.25, 0.5, 120 * MILLION, 70 * MILLION)})
    assert cells_of(table) == [["csv", "2", "3.2", "0.5", "120", "70"]]
    table = workers_table(
        {
            ("", "fork"): [Held(3 * MILLION, 0.0)],
            (LIST, "fork"): [Held(203 * MILLION, 0.002), Held(103 * MILLION, 0.004)],
            (PACKED, "fork"): [Held(4 * MILLION, 0.01)],
        },
        num_rows=1000,
    )
    assert cells_of(table) == [
        ["no rows", "fork", "3.0", "", ""],
        ["a list of objects", "fork", "153.0", "150.0", "3.0"],
        ["SharedRows", "fork", "4.0", "1.0", "10.0"],
    ]


def test_a_system_without_memory_figures_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Path, "is_file", lambda _self: False)
    assert exit_code_of(private_memory) == 1
    assert "this benchmark needs Linux" in capsys.readouterr().err
