"""Runs of a shipped config of post-pretraining through its script, on a tiny CLIP."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from alpro.families.clip_vip.pretraining import PostPretrainingObjective
from pretrain import run_pretrain
from tests.factories import FakeDecoder, caption_of
from tests.families.clip_vip.tiny_clip import IMAGE_SIZE, SHIPPED, ClipVipExperiment
from tests.tasks.conftest import Refuse, Run, refusal, runner

NUM_CAPTIONS = 4  # of six clips


class ClipExperiment(ClipVipExperiment):
    """A shipped config of post-pretraining with clips of a tiny experiment."""

    def __post_init__(self) -> None:
        super().__post_init__()
        captions = [
            {"image_id": f"train{i}", "caption": caption_of(i + 9)} for i in range(NUM_CAPTIONS)
        ]
        train = {
            **{"name": "clips", "vis_format": "videoframe", "vid_txt": "subtitle"},
            **{"txt": str(self.root / "txt/train.jsonl"), "vis": str(self.root / "videos")},
            "vid_cap_path": str(self.write("captions.json", captions)),
            **{"img_dir": "", "cap_path": "", "img_source": "", "img_ratio": 0},
        }
        shipped = json.loads((SHIPPED / "pretrain_vip_base_32.json").read_text())
        kept = self.values.keys() - {"loss_config", "inference_datasets", "train_datasets"}
        self.values = {
            **shipped,
            **{key: self.values[key] for key in kept},
            "train_datasets": [train],
            "val_datasets": [self.dataset("val"), {**self.dataset("test"), "name": "other"}],
            **{"num_train_epochs": 2, "num_valid": 1},
            "resize_size": IMAGE_SIZE,
        }

    def write_annotations(self, path: Path, video_ids: Sequence[str]) -> None:
        """Write the list of clips of a split."""
        rows = [{"clip_id": clip, "text": caption_of(i)} for i, clip in enumerate(video_ids)]
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture
def experiment(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> ClipExperiment:
    monkeypatch.setattr("alpro.experiment.data.make_decoder", lambda *_, **__: FakeDecoder())
    return ClipExperiment(tmp_path, clip=clip)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``src/pretrain/run_pretrain.py`` with some arguments."""
    return runner(run_pretrain, monkeypatch)


@pytest.fixture
def refused(run: Run, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """The message with which it refuses some arguments."""
    return refusal(run, capsys)


def metrics_of(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "log/metrics.jsonl").read_text().splitlines()]


def test_a_shipped_config_trains_and_validates_by_retrieval(
    experiment: ClipExperiment, run: Run
) -> None:
    batches = []
    forward = PostPretrainingObjective.forward

    def noting(objective: PostPretrainingObjective, batch: Any) -> Any:
        batches.append(batch)
        return forward(objective, batch)

    with mock.patch.object(PostPretrainingObjective, "forward", noting):
        run(experiment.arguments())
    # Six clips in batches of three, twice.
    assert [batch.frames.shape[:3] for batch in batches] == [(3, 1, 2)] * 4
    assert sum(int(batch.has_caption.sum()) for batch in batches) == 2 * NUM_CAPTIONS
    # The metrics of each validation set, and their means.
    validated = [one for one in metrics_of(experiment.root / "run") if "text2video_r1" in one]
    assert [one["step"] for one in validated] == [0, 3, 4]
    for one in validated:
        parts = [one[f"{name}_text2video_meanR"] for name in ("tiny val", "other")]
        assert one["text2video_meanR"] == pytest.approx(sum(parts) / 2)
    weights = torch.load(experiment.root / "run/ckpt/model_step_last.pt", weights_only=True)
    assert all(name.startswith("clipmodel.") for name in weights)


def test_a_resumed_run_ends_like_one_that_was_not_interrupted(
    experiment: ClipExperiment, run: Run
) -> None:
    run(experiment.arguments(output="whole"))
    forward, calls = PostPretrainingObjective.forward, []

    def dying(objective: PostPretrainingObjective, batch: Any) -> Any:
        calls.append(batch)
        if len(calls) == 4:
            raise RuntimeError("cut off")
        return forward(objective, batch)

    with (
        mock.patch.object(PostPretrainingObjective, "forward", dying),
        pytest.raises(RuntimeError, match="cut off"),
    ):
        run(experiment.arguments())
    run(experiment.arguments())
    whole, resumed = (
        torch.load(experiment.root / name / "ckpt/model_step_last.pt", weights_only=True)
        for name in ("whole", "run")
    )
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_loss_of_captions_needs_captions(experiment: ClipExperiment, refused: Refuse) -> None:
    part = experiment.values["train_datasets"][0] | {"vis_format": "video"}
    del part["vid_cap_path"]
    message = refused(experiment.arguments(train_datasets=[part]))
    assert "loss_name" in message
    assert "videoframe" in message
