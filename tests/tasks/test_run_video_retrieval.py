"""The entry script from command line to files, in this process, over fake videos."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alpro.datasets.annotations import CaptionRow
from alpro.datasets.decoding.pyav_decoder import PyAVDecoder
from tests.factories import (
    NUM_VIDEO_FRAMES,
    FakeDecoder,
    TinyExperiment,
    caption_of,
    write_captions,
    write_videos,
)
from tests.tasks.conftest import Run, content
from tests.training.toys import (
    DyingDecoder,
    KilledError,
    assert_same,
    assert_same_run,
    metric_lines,
)

RESULTS = "results_test/step_best_1_mean"


def files_of(root: Path) -> set[str]:
    """Names of all files, those of TensorBoard without what identifies the process."""
    names = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    return {name.split(".tfevents")[0] for name in names}


def test_training_writes_checkpoints_logs_and_results(experiment: TinyExperiment, run: Run) -> None:
    run(experiment.arguments(freeze=["visual_encoder.*"], timesformer_model_cfg="unused"))
    root = experiment.root / "run"
    assert files_of(root) == {
        *(
            f"log/{name}"
            for name in (
                "args.json",
                "model_config.json",
                "visual_model_cfg.json",
                "log.txt",
                "run.lock",
            )
        ),
        *("log/metrics.jsonl", "log/events.out", "restore.pt", "restore_backup.pt"),
        *(f"ckpt/model_step_{step}.pt" for step in (2, 4, "best", "last")),
        *(f"{RESULTS}/{name}.json" for name in ("results", "scores", "raw_args", "merged_args")),
    }
    arguments = content(root / "log/args.json")
    expected = {"n_gpu": 1, "num_train_steps": 4, "valid_steps": 2, "learning_rate": 1e-3}
    assert {key: arguments[key] for key in expected} == expected
    assert arguments["architecture"]["visual_model_cfg"]["num_heads"] == 2
    sets = {f"{name}_datasets.0.txt" for name in ("train", "val", "test")}
    assert arguments["annotations_sha256"].keys() == sets | {"tokenizer_dir"}
    assert content(root / "log/model_config.json") == content(experiment.root / "text_model.json")
    lines = metric_lines(root)
    steps = [(line["step"], line["split"]) for line in lines]
    assert steps == sorted([(n, "train") for n in (1, 2, 3, 4)] + [(n, "valid") for n in (0, 2, 4)])
    assert {"loss", "itc_loss", "itm_loss", "lr", "grad_norm"} <= lines[1].keys()
    assert {"loss", "text2video_r1", "video2text_vtc_medianR"} <= lines[0].keys()
    log = (root / "log/log.txt").read_text()
    assert "text to video, VTC only" in log
    assert str(root / RESULTS) in log
    assert "keys without effect: timesformer_model_cfg" in log  # said before there was a log file
    assert re.search(r"freeze: \d\d of the \d\d+ parameters", log)
    assert re.search(r"update 3 of 4: loss \d.*, itc_loss .*, lr .* clips/s, data wait", log)


def test_results_state_their_protocol(experiment: TinyExperiment, run: Run) -> None:
    run(experiment.arguments("--seed", "7"))
    folder = experiment.root / "run" / RESULTS
    records = content(folder / "results.json")
    pairs = {(record["vid_id"], record["txt_id"]) for record in records}
    assert pairs == {(f"test{video}", caption) for video in range(3) for caption in range(3)}
    assert all(set(record) == {"vid_id", "txt_id", "score", "sim"} for record in records)
    assert all(0 < record["score"] < 1 for record in records)
    protocol = content(folder / "scores.json")["protocol"]
    expected = {
        **{"num_captions": 3, "num_videos": 3, "num_scored_pairs": 9, "num_frames": 2},
        **{"resolution": 32, "retrieval_top_k": 0, "precision": "fp32", "seed": 7},
        **{"frame_order": "original", "num_unreadable_videos": 0},
        **{"frame_sampling": "uniform", "video_decoder": "pyav"},
        **{"attention": "auto", "device": "cpu"},
        "videos": str(experiment.root / "videos"),
    }
    assert {key: protocol[key] for key in expected} == expected
    assert {len(protocol[f"{name}_sha256"]) for name in ("annotations", "checkpoint")} == {64}
    raw, merged = content(folder / "raw_args.json"), content(folder / "merged_args.json")
    assert raw["seed"] == merged["seed"] == 7
    assert "weight_decay" not in raw
    assert merged["weight_decay"] == 0.0
    assert merged["n_gpu"] == 1


def test_inference_repeats_the_test_evaluation(experiment: TinyExperiment, run: Run) -> None:
    run(experiment.arguments())
    folder = experiment.root / "run" / RESULTS
    names = ("results.json", "scores.json")
    trained = {name: (folder / name).read_text() for name in names}
    for name in names:
        (folder / name).unlink()
    run(experiment.inference())
    assert {name: (folder / name).read_text() for name in names} == trained


def test_other_protocols_have_results_of_their_own(experiment: TinyExperiment, run: Run) -> None:
    run(experiment.arguments())
    root = experiment.root / "run"
    before = (root / RESULTS / "results.json").read_text()
    run(experiment.inference("--frame_order", "reversed"))
    run(experiment.inference("--retrieval_top_k", "1"))
    run(experiment.inference("--use_itm", "0", "--frame_order", "reversed"))
    assert (root / RESULTS / "results.json").read_text() == before
    assert content(root / f"{RESULTS}_top1/scores.json")["protocol"]["retrieval_top_k"] == 1
    assert content(root / f"{RESULTS}_vtc_reversed/scores.json")["protocol"]["matching"] is False
    other = root / f"{RESULTS}_reversed"
    assert content(other / "results.json") != json.loads(before)
    assert content(other / "scores.json")["protocol"]["frame_order"] == "reversed"


def test_inference_evaluates_a_numbered_checkpoint_on_another_set(
    experiment: TinyExperiment, run: Run
) -> None:
    run(experiment.arguments())
    step = ("--inference_model_step", "2", "--retrieval_top_k", "1")
    run(experiment.inference(*step, split="val"))
    scores = content(experiment.root / "run/results_val/step_2_1_mean_top1/scores.json")
    assert scores["protocol"]["checkpoint"].endswith("ckpt/model_step_2.pt")
    assert 3 <= scores["protocol"]["num_scored_pairs"] <= 6
    assert scores["protocol"]["retrieval_top_k"] == 1


def test_results_of_a_named_checkpoint_bear_its_name(experiment: TinyExperiment, run: Run) -> None:
    run(experiment.arguments(num_train_epochs=1))
    root = experiment.root / "run"
    before = (root / RESULTS / "scores.json").read_text()
    foreign = (root / "ckpt/model_step_2.pt").rename(experiment.root / "pretrained.pt")
    run(experiment.inference("--e2e_weights_path", str(foreign)))
    scores = content(root / "results_test/step_pretrained_1_mean/scores.json")
    assert scores["protocol"]["checkpoint"] == str(foreign)
    assert (root / RESULTS / "scores.json").read_text() == before
    own = root / "ckpt/model_step_best.pt"
    run(experiment.inference("--e2e_weights_path", str(own), "--seed", "8"))
    assert content(root / RESULTS / "scores.json")["protocol"]["seed"] == 8


def test_a_dry_run_writes_nothing(
    experiment: TinyExperiment, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run(experiment.arguments("--dry_run", "1"))
    assert "one batch went through, loss" in capsys.readouterr().err
    assert not (experiment.root / "run").exists()


def test_all_training_sets_are_used(
    experiment: TinyExperiment, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [CaptionRow(caption_of(i), f"more{i}") for i in range(4)]
    write_videos(experiment.root / "more", [row.video_id for row in rows])
    txt = write_captions(experiment.root / "txt/more.jsonl", rows)
    more = {"name": "more", "txt": str(txt), "img": str(experiment.root / "more")}
    decoder = FakeDecoder()
    monkeypatch.setattr("alpro.experiment.data.make_decoder", lambda *_, **__: decoder)
    sets = [experiment.dataset("train"), more]
    run(experiment.arguments(train_datasets=sets, num_train_epochs=1, train_batch_size=5))
    expected = {*(f"train{i}" for i in range(6)), *(f"more{i}" for i in range(4))}
    assert {name for name in decoder.reads if name.startswith(("train", "more"))} == expected
    assert content(experiment.root / "run/log/args.json")["num_train_steps"] == 2


@pytest.mark.parametrize("reads", [7, 16, 23])
def test_a_killed_run_resumes_bit_for_bit(
    experiment: TinyExperiment, run: Run, monkeypatch: pytest.MonkeyPatch, reads: int
) -> None:
    # Of the reads, 3 are of the first validation, 6 of each update, 3 of the validation at 2; the
    # first restore file comes after that.
    changes: dict[str, Any] = {"gradient_accumulation_steps": 2, "num_train_epochs": 4}
    run(experiment.arguments(output="whole", **changes))
    with monkeypatch.context() as patch:
        patch.setattr(
            "alpro.experiment.data.make_decoder", lambda *_, **__: DyingDecoder(last_read=reads)
        )
        with pytest.raises(KilledError):
            run(experiment.arguments(**changes))
    run(experiment.arguments(**changes))
    assert_same_run(experiment.root / "whole", experiment.root / "run")
    results = [experiment.root / name / RESULTS / "results.json" for name in ("whole", "run")]
    assert results[0].read_text() == results[1].read_text()


def test_fp16_on_a_cpu_warns_and_is_fp32(
    experiment: TinyExperiment, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run(experiment.arguments(output="fp32"))
    assert "needs a GPU" not in capsys.readouterr().err
    run(experiment.arguments("--fp16", "1"))
    assert capsys.readouterr().err.count("precision: fp16 needs a GPU") == 1
    last = "ckpt/model_step_last.pt"
    states = [
        torch.load(experiment.root / name / last, weights_only=True) for name in ("fp32", "run")
    ]
    assert_same(*states)


def test_bf16_runs_on_a_cpu_from_end_to_end(experiment: TinyExperiment, run: Run) -> None:
    run(experiment.arguments("--precision", "bf16"))
    root = experiment.root / "run"
    losses = [line["loss"] for line in metric_lines(root) if line["split"] == "train"]
    assert len(losses) == 4
    assert np.isfinite(losses).all()
    state = torch.load(root / "ckpt/model_step_last.pt", weights_only=True)
    assert {value.dtype for value in state.values()} <= {torch.float32, torch.int64}
    assert content(root / RESULTS / "scores.json")["protocol"]["precision"] == "bf16"
    sims = []
    for precision in ("bf16", "fp32"):
        run(experiment.inference("--precision", precision))
        assert content(root / RESULTS / "scores.json")["protocol"]["precision"] == precision
        sims.append([record["sim"] for record in content(root / RESULTS / "results.json")])
    assert sims[0] != sims[1]
    # Cosines over a temperature of 0.07: bf16 keeps 7 bits of each factor.
    np.testing.assert_allclose(sims[0], sims[1], atol=0.5)


def test_a_run_warns_once_of_keys_without_effect(
    experiment: TinyExperiment, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = [experiment.dataset("val"), experiment.dataset("test")]
    run(experiment.arguments(val_datasets=sets, timesformer_model_cfg="unused", num_train_epochs=1))
    said = capsys.readouterr().err
    assert said.count("val_datasets: only the first, tiny val, is validated on") == 1
    assert said.count("keys without effect: timesformer_model_cfg") == 1


def test_random_weights_beside_a_checkpoint_are_warned_of(
    experiment: TinyExperiment, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    notice = "random_init has no effect: e2e_weights_path is given; null takes it away"
    run(experiment.arguments(num_train_epochs=1))
    assert notice not in capsys.readouterr().err
    run(experiment.inference())  # random_init is the trained run's, and was of use there
    assert notice not in capsys.readouterr().err
    checkpoint = str(experiment.root / "run/ckpt/model_step_best.pt")
    run(experiment.arguments("--e2e_weights_path", checkpoint, "--dry_run", "1", output="next"))
    assert capsys.readouterr().err.count(notice) == 1


def test_an_unreadable_video_is_replaced_and_reported(experiment: TinyExperiment, run: Run) -> None:
    write_videos(experiment.root / "videos", ["train2"], broken=["train2"])
    run(experiment.arguments("--max_unreadable_fraction", "0.9"))
    listed = (experiment.root / "run/log/unreadable_videos.jsonl").read_text().splitlines()
    assert [json.loads(line)["video_id"] for line in listed].count("train2") >= 2
    assert {json.loads(line)["reason"] for line in listed} == {"made to be unreadable"}


def test_missing_videos_can_be_left_out(experiment: TinyExperiment, run: Run) -> None:
    for name in ("train1", "test0"):
        (experiment.root / f"videos/{name}.mp4").unlink()
    run(experiment.arguments("--allow_missing_videos", "1"))
    protocol = content(experiment.root / "run" / RESULTS / "scores.json")["protocol"]
    assert (protocol["num_captions"], protocol["num_videos"]) == (2, 2)


def test_real_videos_and_loading_processes_change_nothing(
    experiment: TinyExperiment, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av")
    from tests.datasets.clips import write_frames

    for path in (experiment.root / "videos").iterdir():
        rng = np.random.default_rng(int(path.read_text()))
        colours = rng.integers(0, 255, (NUM_VIDEO_FRAMES, 1, 1, 3), np.uint8)
        write_frames(path, np.broadcast_to(colours, (NUM_VIDEO_FRAMES, 32, 48, 3)).copy())
    monkeypatch.setattr("alpro.experiment.data.make_decoder", lambda *_, **__: PyAVDecoder())
    for workers in ("0", "2"):
        run(experiment.arguments("--n_workers", workers, output=f"run{workers}"))
    assert_same_run(experiment.root / "run0", experiment.root / "run2")


def test_a_finished_run_starts_again_if_overwritten(experiment: TinyExperiment, run: Run) -> None:
    run(experiment.arguments())
    first = metric_lines(experiment.root / "run")
    run(experiment.arguments("--learning_rate", "0.002", "--overwrite", "1"))
    second = metric_lines(experiment.root / "run")
    assert len(second) == len(first)
    assert second[1]["lr"] == 2 * first[1]["lr"]
