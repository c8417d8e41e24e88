"""Runs whose files move or vanish while they go on, or before they are continued."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from alpro.runs import run as running
from alpro.tasks.retrieval.evaluation import RetrievalEvaluator
from tests.factories import TinyExperiment, make_model
from tests.question_factories import QaExperiment
from tests.tasks.conftest import Refuse, Run, content

RESULTS = "results_test/step_best_1_mean"


def vanishing(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    """Let files vanish when the training is done, before the test sets are evaluated."""
    load = running.load_checkpoint

    def load_then_lose(*arguments: Any, **options: Any) -> None:
        load(*arguments, **options)
        for path in paths:
            path.rename(path.with_name(f"lost_{path.name}"))

    monkeypatch.setattr(running, "load_checkpoint", load_then_lose)


def test_annotations_that_vanish_are_not_needed_for_results(
    experiment: TinyExperiment, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    vanishing(monkeypatch, experiment.root / "txt")
    run(experiment.arguments())
    protocol = content(experiment.root / "run" / RESULTS / "scores.json")["protocol"]
    hashes = content(experiment.root / "run/log/args.json")["annotations_sha256"]
    assert protocol["annotations_sha256"] == hashes["test_datasets.0.txt"]


def test_a_label_map_that_vanishes_is_not_needed_for_results(
    qa_experiment: QaExperiment, run_qa: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = qa_experiment.root
    vanishing(monkeypatch, root / "txt", root / "ans2label.json")
    run_qa(qa_experiment.arguments())
    protocol = content(root / "run" / RESULTS / "scores.json")["protocol"]
    hashes = content(root / "run/log/args.json")["annotations_sha256"]
    assert protocol["ans2label_sha256"] == hashes["ans2label_path"]


def test_a_checkpoint_that_vanishes_is_not_needed_for_results(
    experiment: TinyExperiment, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(experiment.arguments())
    root = experiment.root / "run"
    before = content(root / RESULTS / "scores.json")
    evaluate = RetrievalEvaluator.run

    def lose_then_evaluate(*arguments: Any) -> Any:
        (root / "ckpt").rename(root / "lost")
        return evaluate(*arguments)

    monkeypatch.setattr(RetrievalEvaluator, "run", lose_then_evaluate)
    run(experiment.inference())
    assert content(root / RESULTS / "scores.json") == before


def test_a_run_resumes_after_its_files_were_moved(
    experiment: TinyExperiment, run: Run, tmp_path: Path
) -> None:
    root, start = experiment.root, tmp_path / "start.pt"
    torch.save(make_model().state_dict(), start)
    flags = ("--e2e_weights_path", str(start), "--random_init", "0", "--keep_checkpoints", "1")
    run(experiment.arguments(*flags))
    before = (root / "run/log/metrics.jsonl").read_text()
    start.unlink()
    moved = tmp_path / "moved"
    for name in ("txt", "videos", "tokenizer"):
        shutil.move(root / name, moved / name)
    sets = {
        f"--{split}_datasets.0.{key}": str(moved / place)
        for split in ("train", "val", "test")
        for key, place in (("img", "videos"), ("txt", f"txt/{split}.jsonl"))
    }
    words = [word for flag in sets.items() for word in flag]
    run(experiment.arguments(*flags, *words, "--tokenizer_dir", str(moved / "tokenizer")))
    assert (root / "run/log/metrics.jsonl").read_text() == before
    log = (root / "run/log/log.txt").read_text()
    assert f"train_datasets.0.img: {root / 'videos'} before, {moved / 'videos'} now\n" in log
    assert "already finished" in log
    assert content(root / "run/log/args.json")["tokenizer_dir"] == str(moved / "tokenizer")


def test_a_run_with_a_restore_file_offers_its_copy_of_a_label_map(
    qa_experiment: QaExperiment, run_qa: Run, refused_qa: Refuse
) -> None:
    run_qa(qa_experiment.arguments())
    (qa_experiment.root / "ans2label.json").unlink()
    copy = qa_experiment.root / "run/log/ans2label.json"
    message = refused_qa(qa_experiment.arguments())
    assert f"The run has kept a copy; give --ans2label_path {copy}.\n" in message
    run_qa(qa_experiment.arguments("--ans2label_path", str(copy)))


def test_starting_weights_are_asked_for_where_no_restore_file_has_them(
    experiment: TinyExperiment, run: Run, refused: Refuse
) -> None:
    run(experiment.arguments())
    for path in experiment.root.glob("run/restore*"):
        path.unlink()
    flags = ("--e2e_weights_path", "gone.pt", "--random_init", "0")
    assert "e2e_weights_path: gone.pt: there is no" in refused(experiment.arguments(*flags))


def test_a_run_of_an_earlier_version_resumes_and_is_evaluated(
    experiment: TinyExperiment, run: Run, refused: Refuse
) -> None:
    run(experiment.arguments(shuffle_block_size=2))
    args, scores = (experiment.root / "run" / name for name in ("log/args.json", RESULTS))
    before = content(scores / "scores.json")
    # Keys and choices have other names there, some are missing, and one model file is kept.
    stored = content(args)
    for key in ("family", "random_sample_clips"):
        del stored[key]
    stored["shuffle_block"] = stored.pop("shuffle_block_size")
    stored["itm_negatives"] = "own_rank"
    stored["visual_model"] = stored.pop("architecture")["visual_model_cfg"]
    args.write_text(json.dumps(stored))
    run(experiment.arguments(shuffle_block_size=2))
    run(experiment.inference())
    assert content(scores / "scores.json") == before
    # Another rate, or another video encoder, is still another run.
    edited = {**content(experiment.root / "video_model.json"), "pooling": "mean"}
    other = ("--visual_model_cfg", str(experiment.write("edited.json", edited)))
    message = refused(experiment.arguments(*other, "--learning_rate", "0.1", shuffle_block_size=2))
    assert (
        "differs:\n  learning_rate: 0.001 there, 0.1 now\n  visual_model_cfg.pooling: cl" in message
    )
    assert "args.json: pooling 'cls' there, 'mean' now" in refused(experiment.inference(*other))
