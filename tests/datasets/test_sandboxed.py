from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alpro.datasets.annotations import CaptionRow
from alpro.datasets.dataloader import make_loader
from alpro.datasets.decoding import (
    CutOffError,
    FrameSelector,
    SandboxedDecoder,
    Video,
    VideoReadError,
    make_decoder,
)
from alpro.datasets.decoding.base import Loader
from alpro.datasets.decoding.pyav_decoder import PyAVDecoder
from alpro.datasets.frame_sampling import select_frames
from alpro.datasets.quarantine import Quarantine
from alpro.datasets.storage import VideoFolder
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.datasets.video_datasets import EvaluationVideos, FrameReader, TrainingVideos
from tests.datasets.clips import SMALL, write_clip
from tests.datasets.decoders import installed_decoder
from tests.datasets.misbehaving import (
    LoadingDecoder,
    MisbehavingDecoder,
    loaded_modules,
    num_readings,
)

_ODD = 1
_REASONS = {
    "hang": "cut off: took longer than 0.3 seconds",
    "grow": "cut off: took more than 128 megabytes of memory",
    "abort": "cut off: its process ended by SIGABRT: what(): of no use",
}


class _SandboxedBySize(SandboxedDecoder):
    """Has little time for what hangs, to keep the test short, and much for all else."""

    def read(
        self, video: Video, select: FrameSelector, *, preprocessing: PixelPreprocessing
    ) -> np.ndarray:
        assert isinstance(video, Path)
        self._process.seconds = 0.3 if video.read_text() == "hang" else 60
        return super().read(video, select, preprocessing=preprocessing)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for index in range(4):
        (folder / f"v{index}.mp4").write_text("100")
    return folder


@pytest.fixture
def guarded() -> Iterator[SandboxedDecoder]:
    decoder = SandboxedDecoder(PyAVDecoder(), seconds=60, megabytes=512)
    yield decoder
    decoder.close()


def _reader(folder: Path, *, megabytes: int = 128) -> FrameReader:
    return FrameReader(
        VideoFolder(folder),
        _SandboxedBySize(MisbehavingDecoder(), seconds=60, megabytes=megabytes),
        num_frames=4,
        sampling="rand",
        preprocessing=PixelPreprocessing(size=8),
        quarantine=Quarantine(_quarantine(folder), seconds=60, megabytes=megabytes),
    )


def _quarantine(folder: Path) -> Path:
    return folder.parent / "quarantine.jsonl"


def _told_again(folder: Path, reason: str) -> str:
    remedy = f"to try it again, delete its line in {_quarantine(folder)}"
    return f"quarantined: {reason} ({remedy})"


def _with_pid(samples: list[Any]) -> tuple[int, list[Any]]:
    return os.getpid(), samples


@pytest.mark.parametrize("as_bytes", [False, True])
def test_frames_are_the_same(tmp_path: Path, guarded: SandboxedDecoder, as_bytes: bool) -> None:
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
                preprocessing=PixelPreprocessing(size=32, resize="center_crop"),
            )
            for decoder in (PyAVDecoder(), guarded)
        )
        assert safe.shape == (6, 3, 32, 32)
        assert safe.flags.writeable
        np.testing.assert_array_equal(plain, safe)


def test_errors_are_the_same(tmp_path: Path, guarded: SandboxedDecoder) -> None:
    path = tmp_path / "clip.mp4"
    path.write_text("no video")
    reasons = []
    for decoder in (PyAVDecoder(), guarded, pickle.loads(pickle.dumps(guarded))):
        with pytest.raises(VideoReadError) as caught:
            decoder.read(path, len, preprocessing=PixelPreprocessing(size=32))  # type: ignore[arg-type]  # not called
        reasons.append(str(caught.value))
        assert not isinstance(caught.value, CutOffError)
    assert len(set(reasons)) == 1


def test_importing_a_library_is_no_part_of_reading(folder: Path) -> None:
    guarded = SandboxedDecoder(LoadingDecoder(), seconds=60, megabytes=32)
    frames = guarded.read(folder / "v0.mp4", np.arange, preprocessing=PixelPreprocessing(size=8))
    assert frames.shape == (100, 3, 8, 8)
    guarded.close()


@pytest.mark.parametrize("name", ["auto", "pyav", "decord", "torchcodec"])
def test_reading_imports_nothing(tmp_path: Path, name: str) -> None:
    decoder = installed_decoder(name)
    assert isinstance(decoder, Loader)
    path = write_clip(tmp_path / "clip.mp4")
    guarded = SandboxedDecoder(decoder, seconds=0, megabytes=0)
    before = guarded._process.call(loaded_modules)
    guarded.read(path, np.arange, preprocessing=SMALL)
    new = guarded._process.call(loaded_modules) - before
    libraries = ("av", "decord", "torchcodec", "torch")
    assert [module for module in new if module.split(".")[0] in libraries] == []
    guarded.close()


@pytest.mark.parametrize("name", ["auto", "pyav"])
def test_a_limit_below_what_the_library_takes_is_enough(tmp_path: Path, name: str) -> None:
    # Importing PyAV takes 15 megabytes, reading such a clip less than 2.
    guarded = make_decoder(name, megabytes=10)
    path = write_clip(tmp_path / "clip.mp4")
    assert len(guarded.read(path, np.arange, preprocessing=SMALL)) == 16
    assert isinstance(guarded, SandboxedDecoder)
    guarded.close()


@pytest.mark.parametrize(
    ("oddity", "context"),
    [("hang", "fork"), ("grow", "fork"), ("abort", "fork"), ("abort", "spawn")],
)
def test_a_worker_outlives_its_videos(folder: Path, oddity: str, context: str) -> None:
    odd = folder / f"v{_ODD}.mp4"
    odd.write_text(oddity)
    rows = [CaptionRow(f"caption {index}", f"v{index}") for index in range(4)]
    dataset = TrainingVideos(rows, _reader(folder), seed=3)
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
    replaced = [sample.unreadable for samples in epochs for sample in samples if sample.unreadable]
    reasons = [unreadable[0].reason for unreadable in replaced]
    assert {unreadable[0].video_id for unreadable in replaced} == {f"v{_ODD}"}
    assert reasons[0] == _REASONS[oddity]
    assert set(reasons[1:]) == {_told_again(folder, _REASONS[oddity])}
    assert all(sample.frames.shape == (1, 4, 3, 8, 8) for samples in epochs for sample in samples)
    # What may be the fault of an earlier video was tried once more at once, and then no more.
    assert num_readings(odd) == (1 if oddity == "hang" else 2)


def test_evaluation_reports_what_is_cut_off(folder: Path) -> None:
    (folder / f"v{_ODD}.mp4").write_text("abort")
    reader = _reader(folder)
    for reason in (_REASONS["abort"], _told_again(folder, _REASONS["abort"])):
        videos = EvaluationVideos([f"v{index}" for index in range(4)], reader, seed=0)
        read = [videos[position] for position in range(4)]
        assert [video.frames is None for video in read] == [False, True, False, False]
        assert read[_ODD].error == reason


def test_only_videos_that_are_cut_off_enter_the_quarantine(folder: Path) -> None:
    (folder / f"v{_ODD}.mp4").write_text("no number")
    reader = _reader(folder)
    for video_id, error in [("absent", "no file"), (f"v{_ODD}", "invalid literal")]:
        for _ in range(2):
            with pytest.raises((VideoReadError, ValueError), match=f"^{error}"):
                reader.read(video_id, rng=np.random.default_rng(0))
    assert not _quarantine(folder).exists()


def test_a_higher_limit_gives_a_video_another_try(folder: Path) -> None:
    (folder / f"v{_ODD}.mp4").write_text("grow")
    for megabytes, reason in [
        (128, _REASONS["grow"]),
        (128, _told_again(folder, _REASONS["grow"])),
        (160, _REASONS["grow"].replace("128", "160")),
    ]:
        with pytest.raises(VideoReadError) as caught:
            _reader(folder, megabytes=megabytes).read(f"v{_ODD}", rng=np.random.default_rng(0))
        assert str(caught.value) == reason
