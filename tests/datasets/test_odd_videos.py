"""Odd and broken files of the optional shared data: none may crash or hang a process."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from src.datasets.decoding import DecordDecoder, PyAVDecoder
from tests.shared_data import shared_data

_REPOSITORY = Path(__file__).resolve().parents[2]
_SECONDS_ALLOWED = 300

# Run in a process of its own: a library that crashes must not take the test run with it.
_READ_ALL = """
import json, sys
from pathlib import Path
from src.datasets.decoding import VideoReadError, make_decoder
from src.datasets.sampling import frame_indices

def select(num_video_frames):
    return frame_indices(
        "nlvl_uniform", num_video_frames=num_video_frames, num_frames=4, rng=None
    )

decoder = make_decoder(sys.argv[1])
shapes = {}
for path in sorted(Path(sys.argv[2]).iterdir()):
    try:
        shapes[path.name] = decoder.read(path, select, height=64, width=96).shape
    except VideoReadError:
        shapes[path.name] = None
print(json.dumps(shapes))
"""


@pytest.fixture(scope="module")
def real() -> Path:
    shared = shared_data()
    if shared is None:
        pytest.skip("the optional ../shared data is not here")
    return shared / "real"


@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_exactly_the_readable_files_give_frames(real: Path, decoder: str) -> None:
    if decoder == "auto":
        pytest.importorskip("decord")
    with (real / "odd.tsv").open(newline="") as table:
        frame_counts = {
            row["file"]: int(row["frames"] or 0) for row in csv.DictReader(table, delimiter="\t")
        }
    run = subprocess.run(
        [sys.executable, "-c", _READ_ALL, decoder, str(real / "odd")],
        cwd=_REPOSITORY,
        capture_output=True,
        text=True,
        timeout=_SECONDS_ALLOWED,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    shapes = json.loads(run.stdout)
    assert shapes.keys() == frame_counts.keys()
    expected = {name: [4, 3, 64, 96] if n else None for name, n in frame_counts.items()}
    assert shapes == expected


@pytest.mark.parametrize("degrees", ["90", "180", "270"])
def test_both_libraries_turn_rotated_videos_the_same_way(real: Path, degrees: str) -> None:
    pytest.importorskip("decord")
    path = real / "odd" / f"decord_video_{degrees}.mov"
    wide, tall = (
        [
            decoder.read(path, lambda _: np.array([1]), height=height, width=width).astype(int)
            for decoder in (DecordDecoder(), PyAVDecoder())
        ]
        for height, width in [(64, 96), (96, 64)]
    )
    for by_decord, by_pyav in (wide, tall):
        assert np.abs(by_decord - by_pyav).mean() < 1.0
