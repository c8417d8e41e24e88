"""Downstream tasks on images, and on frames that were extracted of videos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.datasets.clips import write_image
from tests.datasets.test_storage_lmdb import write_as_clipbert
from tests.factories import TinyExperiment
from tests.question_factories import QaExperiment
from tests.tasks.conftest import Run, content
from tests.training.toys import metric_lines


def _as_images(folder: Path, stems: list[str]) -> None:
    for level, stem in enumerate(stems):
        write_image(folder / f"{stem}.jpg", level)


def _as_frames(folder: Path, stems: list[str]) -> None:
    for level, stem in enumerate(stems):
        for number in (1, 2, 3):
            write_image(folder / stem / f"frame_{number:06}.png", level)


def _as_lmdb(folder: Path, stems: list[str]) -> None:
    images = folder.parent / "images"
    _as_images(images, stems)
    write_as_clipbert(folder, {stem: (images / f"{stem}.jpg").read_bytes() for stem in stems})


def replace_videos(folder: Path, write: Callable[[Path, list[str]], None]) -> None:
    stems = []
    for video in sorted(folder.glob("*.mp4")):
        stems.append(video.stem)
        video.unlink()
    write(folder, stems)


@pytest.mark.parametrize("experiment_type", [TinyExperiment, QaExperiment])
def test_equal_frames_give_equal_runs(
    tmp_path: Path, run: Run, run_qa: Run, experiment_type: type[TinyExperiment]
) -> None:
    runs = []
    for write in (_as_images, _as_frames, _as_lmdb):
        root = tmp_path / write.__name__
        experiment = experiment_type(root)
        replace_videos(root / "videos", write)
        run_it = run_qa if experiment_type is QaExperiment else run
        run_it(experiment.arguments(frm_sampling_strategy="rand", num_train_epochs=1))
        updates = [line for line in metric_lines(root / "run") if line["split"] == "train"]
        assert [line["unreadable_videos"] for line in updates] == [0] * len(updates)
        (scores,) = (root / "run").glob("results_*/*/scores.json")
        protocol = content(scores).pop("protocol")
        assert (protocol["num_videos"], protocol["num_unreadable_videos"]) == (3, 0)
        runs.append([line["loss"] for line in updates])
    assert len(runs[0]) >= 2
    assert runs[0] == runs[1] == runs[2]


def test_missing_frames_are_named(tmp_path: Path, refused: Callable[[list[str]], str]) -> None:
    experiment = TinyExperiment(tmp_path)
    replace_videos(tmp_path / "videos", _as_frames)
    (tmp_path / "videos/val1").rename(tmp_path / "videos/Val1")
    assert (
        f"1 of the 3 videos named in {tmp_path}/txt/val.jsonl are not in the folder of images "
        f"{tmp_path}/videos: val1\nThe folder has Val1 for id val1; do capitals differ?"
    ) in refused(experiment.arguments())
