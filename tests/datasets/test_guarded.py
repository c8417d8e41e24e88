from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.datasets.annotations import CaptionRow
from src.datasets.decoding import CutOffError, PyAVDecoder, VideoReadError
from src.datasets.decoding.guarded import GuardedDecoder
from src.datasets.loading import make_loader
from src.datasets.quarantine import Quarantine
from src.datasets.sampling import select_frames
from src.datasets.storage import VideoFolder
from src.datasets.videos import EvaluationVideos, FrameReader, TrainingVideos
from tests.datasets.clips import write_clip
from tests.datasets.misbehaving import LoadingDecoder, MisbehavingDecoder, num_readings

_ODD = 1
_REASONS = {
    "hang": "cut off: took longer than 1 seconds",
    "grow": "cut off: took more than 128 megabytes of memory",
    "abort": "cut off: its process ended by SIGABRT: what(): of no use",
}
_SECONDS = {"hang": 1.0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for index in range(4):
        (folder / f"v{index}.mp4").write_text("100")
    return folder


@pytest.fixture
def guarded() -> Iterator[GuardedDecoder]:
    decoder = GuardedDecoder(PyAVDecoder(), seconds=60, megabytes=512)
    yield decoder
    decoder.close()


def _reader(folder: Path, *, seconds: float) -> FrameReader:
    return FrameReader(
        VideoFolder(folder),
        GuardedDecoder(MisbehavingDecoder(), seconds=seconds, megabytes=128),
        num_frames=4,
        sampling="rand",
        frame_size=8,
        quarantine=Quarantine(folder.parent / "quarantine.jsonl"),
    )


def _with_pid(samples: list[Any]) -> tuple[int, list[Any]]:
    return os.getpid(), samples


@pytest.mark.parametrize("as_bytes", [False, True])
def test_frames_are_the_same(tmp_path: Path, guarded: GuardedDecoder, as_bytes: bool) -> None:
    path = write_clip(tmp_path / "clip.mp4", num_frames=16)
    video = path.read_bytes() if as_bytes else path
    for seed in range(3):
        plain, safe = (
            decoder.read(
                video,
                partial(
                    select_frames,
                    strategy="rand",
                    num_frames=2,
                    num_clips=3,
                    rng=np.random.default_rng(seed),
                ),
                height=32,
                width=48,
            )
            for decoder in (PyAVDecoder(), guarded)
        )
        assert safe.shape == (6, 3, 32, 48)
        assert safe.flags.writeable
        np.testing.assert_array_equal(plain, safe)


def test_errors_are_the_same(tmp_path: Path, guarded: GuardedDecoder) -> None:
    path = tmp_path / "clip.mp4"
    path.write_text("no video")
    reasons = []
    for decoder in (PyAVDecoder(), guarded, pickle.loads(pickle.dumps(guarded))):
        with pytest.raises(VideoReadError) as caught:
            decoder.read(path, len, height=32, width=32)  # type: ignore[arg-type]  # not called
        reasons.append(str(caught.value))
        assert not isinstance(caught.value, CutOffError)
    assert len(set(reasons)) == 1


def test_importing_a_library_is_no_part_of_reading(folder: Path) -> None:
    decoder = GuardedDecoder(LoadingDecoder(), seconds=1, megabytes=32)
    frames = decoder.read(folder / "v0.mp4", np.arange, height=8, width=8)
    assert frames.shape == (100, 3, 8, 8)
    decoder.close()


@pytest.mark.parametrize(
    ("oddity", "context"),
    [("hang", "fork"), ("grow", "fork"), ("abort", "fork"), ("abort", "spawn")],
)
def test_a_worker_outlives_its_videos(folder: Path, oddity: str, context: str) -> None:
    odd = folder / f"v{_ODD}.mp4"
    odd.write_text(oddity)
    rows = [CaptionRow(f"caption {index}", f"v{index}") for index in range(4)]
    dataset = TrainingVideos(rows, _reader(folder, seconds=_SECONDS.get(oddity, 60)), seed=3)
    loader = make_loader(
        dataset,
        batches=[[(epoch, index) for index in range(4)] for epoch in range(3)],
        collate=_with_pid,
        num_workers=1,
        pin_memory=False,
    )
    loader.multiprocessing_context = context
    pids, epochs = zip(*loader, strict=True)
    assert len(set(pids)) == 1
    told = [sample.unreadable for samples in epochs for sample in samples if sample.unreadable]
    reasons = [unreadable[0].reason for unreadable in told]
    assert {unreadable[0].video_id for unreadable in told} == {f"v{_ODD}"}
    assert reasons[0] == _REASONS[oddity]
    assert set(reasons[1:]) == {f"quarantined: {_REASONS[oddity]}"}
    assert all(sample.frames.shape == (4, 3, 8, 8) for samples in epochs for sample in samples)
    # What may be the fault of an earlier video was tried once more at once, and then no more.
    assert num_readings(odd) == (1 if oddity == "hang" else 2)


def test_evaluation_reports_what_is_cut_off(folder: Path) -> None:
    (folder / f"v{_ODD}.mp4").write_text("abort")
    reader = _reader(folder, seconds=60)
    for prefix in ("", "quarantined: "):
        videos = EvaluationVideos([f"v{index}" for index in range(4)], reader, seed=0)
        read = [videos[position] for position in range(4)]
        assert [video.frames is None for video in read] == [False, True, False, False]
        assert read[_ODD].error == prefix + _REASONS["abort"]


def test_only_what_is_cut_off_is_put_in_quarantine(folder: Path) -> None:
    (folder / f"v{_ODD}.mp4").write_text("no number")
    reader = _reader(folder, seconds=60)
    for video_id, error in [("absent", "no file"), (f"v{_ODD}", "invalid literal")]:
        for _ in range(2):
            with pytest.raises((VideoReadError, ValueError), match=f"^{error}"):
                reader.read(video_id, rng=np.random.default_rng(0))
    assert not (folder.parent / "quarantine.jsonl").exists()
