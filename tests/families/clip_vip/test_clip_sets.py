"""Sets of clips from entries of a config, and the batches of a run."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from alpro.errors import InputError
from alpro.families.clip_vip.clip_data import load_clips
from alpro.tasks.pretraining.clips import Clip
from alpro.tasks.pretraining.data import CaptionedSet
from alpro.tasks.pretraining.options import PretrainingDataset
from tests.datasets.clips import write_clip
from tests.pretrain.test_clips import write_lines, write_texts

IDS = ("x.0.mp4", "x.1.mp4", "y.0.mp4")


@pytest.fixture
def part(tmp_path: Path) -> PretrainingDataset:
    """HD-VILA's layout: LMDBs of subtitles and captions, and a folder for each video's clips."""
    for clip_id in IDS:
        path = tmp_path / "clips" / clip_id[0] / clip_id
        path.parent.mkdir(parents=True, exist_ok=True)
        write_clip(path, num_frames=2)
    write_texts(tmp_path / "subtitles", {each: b"said in " + each.encode() for each in IDS})
    write_lines(tmp_path / "subtitles.jsonl", *({"clip_id": each} for each in IDS))
    write_texts(tmp_path / "captions", {each: b"a bowl" for each in IDS[:2]})
    return PretrainingDataset(
        name="hdvila",
        txt=str(tmp_path / "subtitles"),
        img=str(tmp_path / "clips"),
        vid_cap_path=str(tmp_path / "captions"),
        vis_format="videoframe",
    )


def _load(part: PretrainingDataset, *, allow_missing: bool = False) -> CaptionedSet:
    config = cast("Any", SimpleNamespace(allow_missing_videos=allow_missing))
    return load_clips(config, part, key="train_datasets.0")


def test_a_missing_caption_is_counted_once(
    part: PretrainingDataset, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        loaded = _load(part)
    assert loaded.middle_frame
    assert [clip.caption for clip in loaded.items] == ["a bowl", "a bowl", ""]
    (line,) = caplog.messages
    assert line.startswith("hdvila: 1 of 3 clips have no caption in ")
    assert line.endswith("they have no pair of frame and caption")
    assert loaded.description(num_used=3) == "hdvila: 3 captioned videos"


def test_captions_that_are_not_used_are_not_read(part: PretrainingDataset) -> None:
    part.vis_format, part.vid_cap_path = "video", "nowhere"
    loaded = _load(part)
    assert not loaded.middle_frame
    assert loaded.items[0] == Clip("x.0.mp4", ("said in x.0.mp4",), "")


def test_captions_of_other_clips_are_refused(part: PretrainingDataset, tmp_path: Path) -> None:
    part.vid_cap_path = str(write_texts(tmp_path / "others", {"z": b"a bowl"}))
    with pytest.raises(InputError, match=r"^train_datasets\.0\.vid_cap_path \(hdvila\): none of"):
        _load(part)


def test_missing_texts_and_clips_are_errors_unless_allowed(
    part: PretrainingDataset, tmp_path: Path
) -> None:
    ids = [*IDS, "z.0.mp4", "z.1.mp4"]
    write_lines(tmp_path / "subtitles.jsonl", *({"clip_id": each} for each in ids))
    with pytest.raises(InputError, match=r"2 of the 5 clips listed in .*z\.0\.mp4, z\.1\.mp4"):
        _load(part)
    write_texts(tmp_path / "subtitles", {"z.0.mp4": b"said in z"})
    assert len(_load(part, allow_missing=True).items) == 3
    (tmp_path / "clips/y/y.0.mp4").unlink()
    assert [clip.video_id for clip in _load(part, allow_missing=True).items] == [*IDS[:2]]
