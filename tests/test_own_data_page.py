"""The page that takes a folder of videos to a trained model, command by command, as written."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.datasets.clips import write_clip
from tests.test_docs import CODE_BLOCK, ROOT

PAGE = ROOT / "docs/guides/own-data.md"
NUM_VIDEOS = 20
GREYS = ("black", "dark", "grey", "pale", "white")
SECONDS_ALLOWED = 300


def commands_of_the_first_part() -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    _, _, rest = text.partition("## From a folder to a model")
    part, _, _ = rest.partition("\n## ")
    return [
        command
        for language, block in CODE_BLOCK.findall(part)
        if language == "bash"
        for command in block.replace("\\\n", " ").splitlines()
        if command.strip()
    ]


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with the repository's code and a reader's videos and captions."""
    for name in ("src", "config_release", "ext"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "config_release").unlink()
    (tmp_path / "config_release").mkdir()
    for path in (ROOT / "config_release").glob("*.json"):
        (tmp_path / "config_release" / path.name).write_bytes(path.read_bytes())
    videos = tmp_path / "data/my_data/videos"
    (videos / "kitchen").mkdir(parents=True)
    rows = []
    for number in range(NUM_VIDEOS):
        folder = videos / "kitchen" if number % 3 == 0 else videos
        ending = (".mp4", ".mkv", ".MOV")[number % 3]
        write_clip(folder / f"{number:04}{ending}", num_frames=6 + number)
        rows += [(f"{number:04}", f"clip {number} gets {grey}, slowly") for grey in GREYS[:2]]
    with (tmp_path / "data/my_data/captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("clip_name", "caption"), *rows])
    return tmp_path


def test_every_command_of_the_page_runs_as_written(workplace: Path) -> None:
    program = workplace / "bin/alpro"  # as an installation has it, of these sources
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m alpro "$@"\n')
    program.chmod(0o755)
    python = f"{program.parent}{os.pathsep}{Path(sys.executable).parent}"
    environment = {**os.environ, "PATH": f"{python}{os.pathsep}{os.environ['PATH']}"}
    told = {}
    for command in commands_of_the_first_part():
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=workplace,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS_ALLOWED,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        told[command] = done.stdout
    (scores,) = workplace.glob("output/my_run/results_test/*/scores.json")
    assert json.loads(scores.read_text())["protocol"]["num_videos"] == 2
    assert (workplace / "output/my_run/ckpt/model_step_best.pt").is_file()
    assert (workplace / "output/my_check/report.html").is_file()
    assert len(told) >= 9
