from __future__ import annotations

from pathlib import Path

import pytest

from alpro.commands.bench import decode as bench_decode
from alpro.commands.bench.command import main
from alpro.commands.bench.decode import GUARDED, PLAIN_DECORD, Job, decode_table
from alpro.commands.bench.processes import started_processes
from alpro.errors import RunError
from tests.commands.readers import CrashingReader
from tests.datasets.clips import write_clip


def cells_of(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def test_decode_table_matches_a_hand_computed_one() -> None:
    originals, prepared = Path("originals"), Path("prepared")
    table = decode_table(
        {
            Job(originals, PLAIN_DECORD, 1): [8.0, 10.0, 30.0],
            Job(prepared, "pyav", 1): [40.0, 20.0, 50.0],
            Job(originals, PLAIN_DECORD, 2): [20.0],
            Job(prepared, "pyav", 2): [90.0],
        }
    )
    assert cells_of(table) == [
        ["originals", PLAIN_DECORD, "1", "10.0 (8.0 to 30.0)", "1.00"],
        ["prepared", "pyav", "1", "40.0 (20.0 to 50.0)", "4.00"],
        ["originals", PLAIN_DECORD, "2", "20.0 (20.0 to 20.0)", "1.00"],
        ["prepared", "pyav", "2", "90.0 (90.0 to 90.0)", "4.50"],
    ]
    assert f"{PLAIN_DECORD} on originals" in table


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two folders of the same videos; one is broken, one a link that leads nowhere."""
    folders = [tmp_path / "originals", tmp_path / "prepared"]
    for folder in folders:
        folder.mkdir()
        for name in ("a", "c"):
            write_clip(folder / f"{name}.mp4", num_frames=6)
        (folder / "b.mp4").write_text("no video")
        (folder / "d.mp4").symlink_to(folder / "nowhere")
    return folders


def test_every_decoder_and_storage_is_measured(
    folders: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    sets = ["--videos", *map(str, folders), "--workers", "1", "2"]
    assert main(["decode", *sets, "--frames", "2", "--size", "32", "--rounds", "1"]) == 0
    out = capsys.readouterr().out
    rows = cells_of(out)
    names = [*bench_decode.installed_decoders()]
    assert {"pyav", GUARDED} <= set(names)
    assert [row[:3] for row in rows] == [
        [str(folder), name, count] for count in "12" for folder in folders for name in names
    ]
    assert all(float(row[3].split()[0]) > 0 for row in rows)
    assert "a decoder cannot read them: 2 videos of 4." in out


def test_a_storage_that_lacks_videos_of_the_first_is_refused(
    folders: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (folders[1] / "c.mp4").unlink()
    assert main(["decode", "--videos", *map(str, folders)]) == 2
    assert f"{folders[1]} lacks 1 video of {folders[0]} ('c' first)" in capsys.readouterr().err


def test_a_folder_without_a_readable_video_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["decode", "--videos", str(tmp_path)]) == 2
    assert "holds no videos" in capsys.readouterr().err
    (tmp_path / "broken.mp4").write_text("no video")
    assert main(["decode", "--videos", str(tmp_path)]) == 2
    assert "no decoder can read any of the videos" in capsys.readouterr().err


def test_a_process_that_dies_ends_the_benchmark() -> None:
    with (
        started_processes(2) as processes,
        pytest.raises(RunError, match="a process that read videos has ended"),
    ):
        processes.time(CrashingReader(), [0, 1, 2], num_processes=2)
