"""Both entry scripts from command line to files, in this process, over fake videos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from alpro.tasks.pretraining.config import PretrainConfig
from tests.factories import write_videos
from tests.pretraining_factories import (
    ENTITIES,
    LOSSES,
    PretrainExperiment,
    make_pretraining_model,
)
from tests.tasks.conftest import Run, content
from tests.training.toys import DyingDecoder, KilledError, assert_same_run, metric_lines


def losses_of(root: Path, split: str) -> list[set[str]]:
    """Names of the losses in each line of a run's metrics."""
    lines = [line for line in metric_lines(root) if line["split"] == split]
    return [{name for name in line if name.endswith("loss")} for line in lines]


def test_pretraining_writes_checkpoints_and_logs(experiment: PretrainExperiment, run: Run) -> None:
    run(experiment.pretraining())
    root = experiment.root / "run"
    arguments = content(root / "log/args.json")
    assert arguments["num_train_steps"] == 7  # 10 samples, 2 epochs, batches of 3
    assert arguments["script"] == PretrainConfig.SCRIPT
    assert arguments["annotations_sha256"].keys() == {
        *(f"{name}_datasets.{index}.ann" for name in ("train", "val") for index in (0, 1)),
        *("entity_file_path", "teacher_weights_path", "tokenizer_dir"),
    }
    assert (root / "log/entities.txt").read_text().split()[0] == ENTITIES[0]
    log = (root / "log/log.txt").read_text()
    assert "tiny train: 6 captioned videos\n" in log
    assert "tiny train images: 4 captioned images\n" in log
    assert f"tiny val images ({experiment.root / 'txt/val_images.json'}): 2 pairs\n" in log
    assert "the prompter predicts 5 entities: ball, box, red, green, blue\n" in log
    every = {"loss", *(f"{name}_loss" for name in LOSSES)}
    assert losses_of(root, "train") == [every] * 7
    assert losses_of(root, "valid") == [every] * 3  # after 0, 4 and 7 updates
    shares = {"i2t_acc", "t2i_acc", "itm_acc", "mlm_acc", "mpm_acc", "mpm_confident"}
    assert all(shares <= line.keys() for line in metric_lines(root))
    state = torch.load(root / "ckpt/model_step_best.pt", weights_only=True)
    assert state.keys() == make_pretraining_model().state_dict().keys()


def test_a_prompter_run_writes_its_checkpoint(
    experiment: PretrainExperiment, run_prompter: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run_prompter(experiment.prompting())
    assert "without effect" not in capsys.readouterr().err
    root = experiment.root / "prompter"
    state = torch.load(root / "ckpt/model_step_best.pt", weights_only=True)
    prefix = "prompter."
    pretrained = make_pretraining_model().state_dict()
    assert state.keys() == {
        name.removeprefix(prefix) for name in pretrained if name.startswith(prefix)
    }
    assert losses_of(root, "train") == [{"loss", "itc_loss"}] * 7
    validations = [line for line in metric_lines(root) if line["split"] == "valid"]
    assert {"loss", "itc_loss", "i2t_acc", "t2i_acc"} <= validations[0].keys()


def test_a_dry_run_writes_nothing(
    experiment: PretrainExperiment,
    run: Run,
    run_prompter: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(experiment.pretraining("--dry_run", "1"))
    run_prompter(experiment.prompting("--dry_run", "1"))
    log = capsys.readouterr().err
    assert log.count("one batch went through, loss") == 2
    assert "mpm_confident" in log
    assert not (experiment.root / "run").exists()
    assert not (experiment.root / "prompter").exists()


def test_each_batch_is_of_images_or_of_videos(
    experiment: PretrainExperiment, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alpro.families.alpro.pretraining_objective import PretrainingObjective

    seen, forward = [], PretrainingObjective.forward

    def noting(self: PretrainingObjective, batch: Any) -> Any:
        seen.append((batch.media, batch.video_ids, tuple(batch.frames.shape)))
        return forward(self, batch)

    monkeypatch.setattr(PretrainingObjective, "forward", noting)
    run(experiment.pretraining(gradient_accumulation_steps=2, num_train_epochs=4, repeat_images=0))
    assert {media for media, _, _ in seen} == {"video", "image"}
    assert len(seen) == 14
    for first, second in zip(seen[::2], seen[1::2], strict=True):
        assert first[0] == second[0]  # one kind for each update
    for media, names, shape in seen:
        assert all(name.endswith(".png") == (media == "image") for name in names)
        assert shape[1:] == (1, (2 if media == "video" else 1), 3, 32, 32)


RESUMED: dict[str, Any] = {
    **{"gradient_accumulation_steps": 2, "num_train_epochs": 4, "itm_start_ratio": 0.4},
    "num_valid": 4,
}


@pytest.mark.parametrize(("reads", "saved"), [(10, False), (19, True)])
def test_a_killed_run_resumes_bit_for_bit(
    experiment: PretrainExperiment,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    reads: int,
    saved: bool,
) -> None:
    run(experiment.pretraining(output="whole", **RESUMED))
    with monkeypatch.context() as patch:
        patch.setattr(
            "alpro.experiment.data.make_decoder",
            lambda *_, **__: DyingDecoder(last_read=reads),
        )
        with pytest.raises(KilledError):
            run(experiment.pretraining(**RESUMED))
    assert (experiment.root / "run/restore.pt").exists() == saved
    run(experiment.pretraining(**RESUMED))
    assert_same_run(experiment.root / "whole", experiment.root / "run")
    with_matching = ["itm_loss" in names for names in losses_of(experiment.root / "run", "train")]
    assert with_matching == [False] * 2 + [True] * 5


def test_a_killed_prompter_run_resumes_bit_for_bit(
    experiment: PretrainExperiment, run_prompter: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_prompter(experiment.prompting(output="whole"))
    with monkeypatch.context() as patch:
        patch.setattr(
            "alpro.experiment.data.make_decoder", lambda *_, **__: DyingDecoder(last_read=12)
        )
        with pytest.raises(KilledError):
            run_prompter(experiment.prompting())
    run_prompter(experiment.prompting())
    assert_same_run(experiment.root / "whole", experiment.root / "prompter")


def test_loading_processes_change_nothing(
    experiment: PretrainExperiment, run_prompter: Run
) -> None:
    for workers in ("0", "1"):
        run_prompter(
            experiment.prompting("--n_workers", workers, output=workers, num_train_epochs=1)
        )
    assert_same_run(experiment.root / "0", experiment.root / "1")


def test_without_the_entity_loss_neither_entities_nor_a_teacher_are_needed(
    experiment: PretrainExperiment, run: Run
) -> None:
    experiment.teacher.unlink()
    (experiment.root / "entities.txt").unlink()
    run(experiment.pretraining("--use_mpm", "0", num_train_epochs=1))
    root = experiment.root / "run"
    assert losses_of(root, "train") == [{"loss", "itc_loss", "itm_loss", "mlm_loss"}] * 4
    state = torch.load(root / "ckpt/model_step_best.pt", weights_only=True)
    assert not [name for name in state if name.startswith(("prompter.", "mpm_head."))]
    assert not (root / "log/entities.txt").exists()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_run_with_one_loss_trains(experiment: PretrainExperiment, run: Run, loss: str) -> None:
    switches: dict[str, Any] = {f"use_{name}": int(name == loss) for name in LOSSES}
    metric = {"itc": "i2t_acc"}.get(loss, f"{loss}_acc")
    run(experiment.pretraining(**switches, num_train_epochs=1, best_metric=metric))
    assert losses_of(experiment.root / "run", "train") == [{"loss", f"{loss}_loss"}] * 4


def test_an_unreadable_image_is_replaced_and_listed(
    experiment: PretrainExperiment, run: Run
) -> None:
    (experiment.root / "images/train0.png").write_text("no image")
    write_videos(experiment.root / "videos", ["train1"], broken=["train1"])
    run(experiment.pretraining("--max_unreadable_fraction", "1", num_train_epochs=4))
    listed = (experiment.root / "run/log/unreadable_videos.jsonl").read_text().splitlines()
    assert {json.loads(line)["video_id"] for line in listed} == {"train0.png", "train1"}


def test_bf16_runs_on_a_cpu(experiment: PretrainExperiment, run: Run) -> None:
    run(experiment.pretraining("--precision", "bf16", num_train_epochs=1))
    lines = metric_lines(experiment.root / "run")
    assert all(0 < line["loss"] < 100 for line in lines)
    state = torch.load(experiment.root / "run/ckpt/model_step_last.pt", weights_only=True)
    assert {value.dtype for value in state.values()} <= {torch.float32, torch.int64}
