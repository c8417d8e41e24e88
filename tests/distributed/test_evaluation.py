"""Any number of processes writes the same results, to the last byte."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.jobs import both_engines, on_processes
from tests.distributed.scripts import Command, run_commands
from tests.factories import BROKEN, TinyExperiment
from tests.question_factories import QUESTIONS, QaExperiment

NUM_VIDEOS = 13  # in chunks of 2: 7, which neither 2 nor 3 processes share evenly
READABLE = [f"test{number}" for number in range(NUM_VIDEOS) if number != 4]
RETRIEVAL = {
    "results_test/step_best_1_mean": ("results.json", "scores.json"),
    "results_test/step_best_1_mean_top2": ("results.json", "scores.json"),
}
ANSWERS = {"results_test/step_best_2_lse": ("results_all.json", "scores.json")}


def inference(script: str, experiment: TinyExperiment, *flags: str) -> Command:
    options = ("--allow_missing_videos", "1", "--num_threads", "1", "--inference_batch_size", "5")
    return script, experiment.inference("--inference_model_step", "best", *options, *flags)


def written(root: Path, folders: Mapping[str, tuple[str, ...]]) -> dict[str, bytes]:
    """Contents of the files that an evaluation has written; they are removed."""
    found = {}
    for folder, names in folders.items():
        for name in names:
            path = root / "run" / folder / name
            found[f"{folder}/{name}"] = path.read_bytes()
            path.unlink()
    return found


def results_of(
    experiment: TinyExperiment,
    commands: Sequence[Command],
    folders: Mapping[str, tuple[str, ...]],
    *,
    size: int,
    backend: str,
) -> dict[str, bytes]:
    on_processes(size, run_commands, commands, backend=backend)
    merged = experiment.root / "run" / next(iter(folders)) / "merged_args.json"
    assert json.loads(merged.read_text())["n_gpu"] == size
    return written(experiment.root, folders)


@pytest.fixture
def retrieval(tmp_path: Path) -> tuple[TinyExperiment, list[Command]]:
    """Two inferences with a trained model; one of the videos cannot be read."""
    experiment = TinyExperiment(tmp_path, num_test=NUM_VIDEOS)
    train(experiment, "retrieval")
    top = ("--retrieval_top_k", "2")
    commands = [inference("retrieval", experiment), inference("retrieval", experiment, *top)]
    return experiment, commands


@pytest.fixture
def questions(tmp_path: Path) -> tuple[TinyExperiment, list[Command]]:
    """Answers from two clips of each video."""
    experiment = QaExperiment(tmp_path, num_test=NUM_VIDEOS)
    train(experiment, "questions")
    clips = ("--inference_n_clips", "2", "--score_agg_func", "lse")
    return experiment, [inference("questions", experiment, *clips)]


def train(experiment: TinyExperiment, script: str) -> None:
    """Make a checkpoint, then a test video that cannot be read."""
    values: dict[str, Any] = {"num_train_epochs": 1, "test_datasets": []}
    on_processes(1, run_commands, [(script, experiment.arguments(**values))])
    (experiment.root / "videos/test4.mp4").write_text(BROKEN)


@both_engines
def test_retrieval(backend: str, retrieval: tuple[TinyExperiment, list[Command]]) -> None:
    expected, *others = [
        results_of(*retrieval, RETRIEVAL, size=size, backend=backend) for size in (1, 2, 3)
    ]
    assert others == [expected] * 2
    everything, few = (json.loads(expected[f"{folder}/results.json"]) for folder in RETRIEVAL)
    pairs = Counter((one["vid_id"], one["txt_id"]) for one in everything)
    captions = {caption for _, caption in pairs}
    assert len(captions) == len(READABLE)
    assert pairs == {(video, caption): 1 for video in READABLE for caption in captions}
    some = Counter((one["vid_id"], one["txt_id"]) for one in few)
    assert set(some.values()) == {1}
    assert len(READABLE) < len(some) < len(pairs)
    protocol = json.loads(expected["results_test/step_best_1_mean/scores.json"])["protocol"]
    assert protocol["num_scored_pairs"] == len(pairs)
    assert protocol["num_unreadable_videos"] == 1


@both_engines
def test_questions(backend: str, questions: tuple[TinyExperiment, list[Command]]) -> None:
    expected, *others = [
        results_of(*questions, ANSWERS, size=size, backend=backend) for size in (1, 2, 3)
    ]
    assert others == [expected] * 2
    answers, scores = (json.loads(content) for content in expected.values())
    asked = Counter(one["question_id"] for one in answers)
    assert set(asked.values()) == {1}
    assert len(asked) == len(READABLE) * len(QUESTIONS)
    assert scores["counts"]["overall"][1] == len(asked)
