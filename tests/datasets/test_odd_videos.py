"""Odd and broken files of the optional shared data: none may crash or hang a process."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alpro.datasets.decoding.pyav_decoder import PyAVDecoder
from tests.datasets.clips import SMALL
from tests.datasets.decoders import installed_decoder
from tests.shared_data import shared_data

_REPOSITORY = Path(__file__).resolve().parents[2]
_SECONDS_ALLOWED = 300

# Run in a process of its own: a library that crashes must not take the test run with it.
_READ_ALL = """
import json, sys
from pathlib import Path
from alpro.datasets.decoding import VideoReadError, make_decoder
from alpro.datasets.frame_sampling import frame_indices
from alpro.datasets.transforms.preprocessing import PixelPreprocessing

def select(num_video_frames):
    return frame_indices(
        "nlvl_uniform", num_video_frames=num_video_frames, num_frames=4, rng=None
    )

decoder = make_decoder(sys.argv[1])
shapes = {}
for path in sorted(Path(sys.argv[2]).iterdir()):
    shapes[path.name] = []
    for video, resize in ((path, "squash"), (path.read_bytes(), "pad")):
        try:
            shape = decoder.read(
                video, select, preprocessing=PixelPreprocessing(size=64, resize=resize)
            ).shape
        except VideoReadError:
            shape = None
        shapes[path.name].append(shape)
print(json.dumps(shapes))
"""


@pytest.fixture(scope="module")
def real() -> Path:
    shared = shared_data()
    if shared is None:
        pytest.skip("the optional ../shared data is not here")
    return shared / "real"


NOT_BY_TORCHCODEC = {
    "decord_corrupted.mp4",
    "media3_sample_fragmented_variable_length_sgpd.mp4",
    "media3_sample_h264_dts_audio.ts",
}
"""Readable files that torchcodec gives up on: one packet in them is broken, or a time is odd."""


@pytest.mark.parametrize("name", ["auto", "pyav", "torchcodec"])
def test_exactly_the_readable_files_give_frames(real: Path, name: str) -> None:
    installed_decoder(name)
    with (real / "odd.tsv").open(newline="") as table:
        readable = {
            row["file"]: row["frames"] > "0" for row in csv.DictReader(table, delimiter="\t")
        }
    run = subprocess.run(
        [sys.executable, "-c", _READ_ALL, name, str(real / "odd")],
        cwd=_REPOSITORY,
        capture_output=True,
        text=True,
        timeout=_SECONDS_ALLOWED,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    shapes = json.loads(run.stdout)
    if name == "torchcodec":
        readable |= dict.fromkeys(NOT_BY_TORCHCODEC, False)
    assert shapes == {
        name: [[4, 3, 64, 64] if is_readable else None] * 2
        for name, is_readable in readable.items()
    }


@pytest.mark.parametrize("name", ["decord", "torchcodec"])
@pytest.mark.parametrize(
    "file_name",
    [f"decord_video_{degrees}.mov" for degrees in (90, 180, 270)]
    + ["media3_sample_rotate_and_reflect.mp4", "media3_sample_with_color_info.mp4"],
)
def test_libraries_turn_rotated_videos_the_same_way(real: Path, file_name: str, name: str) -> None:
    path = real / "odd" / file_name
    decoders = (installed_decoder(name), PyAVDecoder())
    for preprocessing in (SMALL, replace(SMALL, resize="pad")):
        theirs, ours = (
            decoder.read(path, lambda _: np.array([1]), preprocessing=preprocessing).astype(int)
            for decoder in decoders
        )
        assert np.abs(theirs - ours).mean() < 2.0
