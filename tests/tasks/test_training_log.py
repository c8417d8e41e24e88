"""Log lines of a training run, and their order."""

from __future__ import annotations

import json
import re

import pytest

from alpro.training.reporting import Reporter
from tests.factories import TinyExperiment
from tests.tasks.conftest import Run


def test_the_log_summarises_model_data_and_length(experiment: TinyExperiment, run: Run) -> None:
    run(experiment.arguments(freeze=["visual_encoder.*"]))
    root = experiment.root
    log = (root / "run/log/log.txt").read_text()
    sizes = re.search(r"parameters: (\d+) trainable of (\d+)\n", log)
    assert sizes
    assert 0 < int(sizes[1]) < int(sizes[2])
    assert re.search(r"device cpu, precision fp32, processes: 1, threads of each: \d", log)
    assert "tiny train: 6 captions, 6 videos to train on\n" in log
    for split in ("val", "test"):
        path = root / "txt" / f"{split}.jsonl"
        assert f"tiny {split} ({path}): 3 captions, 3 videos\n" in log
    assert re.search(r"global batch: (\d+) \(\1 x 1 processes, 1 accumulated\)\n", log)
    assert "epochs: 2, updates: 4, validation every 2, restore file every 2\n" in log
    assert re.search(r"update 0: text2video_r1 [\d.]+, before training\n", log)


def test_the_training_bar_is_closed_before_the_test_evaluation(
    experiment: TinyExperiment, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    close = Reporter.close

    def close_and_note(reporter: Reporter) -> None:
        close(reporter)
        events.append("closed")

    monkeypatch.setattr(Reporter, "close", close_and_note)
    monkeypatch.setattr("alpro.runs.run.evaluate_test_sets", lambda *_, **__: events.append("test"))
    run(experiment.arguments())
    assert events == ["closed", "test"]


def test_a_run_that_resumes_loads_no_starting_weights(
    experiment: TinyExperiment, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run(experiment.arguments())
    assert "starting from random weights" in capsys.readouterr().err
    run(experiment.arguments())
    said = capsys.readouterr().err
    assert f"continuing {experiment.root / 'run'} after update 4" in said
    assert "starting from random weights" not in said
    for flag in ("--dry_run", "--overwrite"):
        run(experiment.arguments(flag, "1"))
        assert "starting from random weights" in capsys.readouterr().err


def test_a_finished_run_says_so_before_it_is_tested_again(
    experiment: TinyExperiment, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run(experiment.arguments())
    capsys.readouterr()
    run(experiment.arguments())
    said = capsys.readouterr().err
    best = experiment.root / "run/ckpt/model_step_best.pt"
    line = f"already finished (4 of 4 updates); the best checkpoint is {best}\n"
    assert said.count(line) == 1
    assert said.index(line) < said.index(f"{best}: ")
    assert "these results replace others" not in said


def test_results_of_another_evaluation_are_not_replaced_unnoticed(
    experiment: TinyExperiment, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run(experiment.arguments())
    folder = experiment.root / "run/results_test/step_best_1_mean"
    run(experiment.inference("--seed", "7", "--max_txt_len", "11"))
    said = capsys.readouterr().err
    changes = "max_txt_len 12 there, 11 now; seed 42 there, 7 now"
    assert f"these results replace others in {folder}: {changes}\n" in said
    scores = json.loads((folder / "scores.json").read_text())
    scores["protocol"] |= {"version": "0", "num_captions": 1}
    for text in (json.dumps(scores), "damaged"):
        (folder / "scores.json").write_text(text)
        run(experiment.inference("--seed", "7", "--max_txt_len", "11"))
    assert "these results replace" not in capsys.readouterr().err
