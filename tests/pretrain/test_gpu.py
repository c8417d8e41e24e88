"""Pretraining on a GPU: half precision, CUDA generators, resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.pretraining_factories import LOSSES, PretrainExperiment
from tests.tasks.conftest import Run
from tests.training.toys import DyingDecoder, KilledError, assert_same_run, metric_lines

pytest.importorskip("tensorboard")
pytestmark = pytest.mark.gpu

DEVICE = "cuda"
KINDS: dict[str, dict[str, Any]] = {
    "images as clips": {},
    "images of one frame": {"repeat_images": 0},
    "one pair": {"train_batch_size": 1, "val_batch_size": 1},
}


def check_run(root: Path, *, precision: str, losses: tuple[str, ...], updates: int) -> None:
    """All numbers are finite, weights and moments in full precision; most parameters learn."""
    lines = metric_lines(root)
    assert sum(line["split"] == "train" for line in lines) == updates
    assert {name for line in lines for name in line if name.endswith("_loss")} == {
        f"{name}_loss" for name in losses
    }
    for line in lines:
        assert all(np.isfinite(value) for name, value in line.items() if name.endswith("loss"))
    state = torch.load(root / "restore.pt", map_location="cpu", weights_only=True)
    assert {value.dtype for value in state["model"].values()} <= {torch.float32, torch.int64}
    moments = [entry["exp_avg"].abs().max() for entry in state["optimizer"]["state"].values()]
    assert torch.stack(moments).isfinite().all()
    assert torch.stack(moments).count_nonzero() > 0.8 * len(moments)
    assert bool(state["engine"]) == (precision == "fp16")


# The scale of fp16's loss starts too high, and each update that overflows is skipped and halves it.
@pytest.mark.parametrize(("precision", "epochs"), [("fp32", 2), ("bf16", 2), ("fp16", 6)])
@pytest.mark.parametrize("kind", KINDS)
def test_both_stages_run_from_end_to_end(
    experiment: PretrainExperiment,
    run_prompter: Run,
    run: Run,
    kind: str,
    precision: str,
    epochs: int,
) -> None:
    flags = ("--device", DEVICE, "--precision", precision)
    changes: dict[str, Any] = {**KINDS[kind], "num_train_epochs": epochs}
    updates = -(-10 * epochs // changes.get("train_batch_size", 3))
    run_prompter(experiment.prompting(*flags, **{**changes, "train_batch_size": 3}))
    root = experiment.root / "prompter"
    check_run(root, precision=precision, losses=("itc",), updates=-(-10 * epochs // 3))
    teacher = str(root / "ckpt/model_step_best.pt")
    run(experiment.pretraining(*flags, teacher_weights_path=teacher, **changes))
    check_run(experiment.root / "run", precision=precision, losses=LOSSES, updates=updates)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("reads", [10, 19])
def test_a_killed_run_resumes_bit_for_bit(
    experiment: PretrainExperiment,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    reads: int,
) -> None:
    flags = ("--device", DEVICE, "--precision", precision)
    changes: dict[str, Any] = {"gradient_accumulation_steps": 2, "num_train_epochs": 4}
    run(experiment.pretraining(*flags, output="whole", **changes))
    with monkeypatch.context() as patch:
        patch.setattr(
            "alpro.experiment.data.make_decoder", lambda *_, **__: DyingDecoder(last_read=reads)
        )
        with pytest.raises(KilledError):
            run(experiment.pretraining(*flags, **changes))
    run(experiment.pretraining(*flags, **changes))
    assert_same_run(experiment.root / "whole", experiment.root / "run")


def test_precisions_and_devices_agree_in_validation(
    experiment: PretrainExperiment, run: Run
) -> None:
    """Before training; hard negatives are drawn by each device's own generator."""
    losses = {}
    for device, precision in (("cpu", "fp32"), (DEVICE, "fp32"), (DEVICE, "bf16")):
        flags = ("--device", device, "--precision", precision, "--entity_threshold", "0")
        output = f"{device} {precision}"
        run(experiment.pretraining(*flags, output=output, num_train_epochs=1, use_itm=0))
        line = metric_lines(experiment.root / output)[0]
        losses[device, precision] = [line[f"{name}_loss"] for name in ("itc", "mlm", "mpm")]
    expected = losses["cpu", "fp32"]
    np.testing.assert_allclose(losses[DEVICE, "fp32"], expected, atol=0.05)
    np.testing.assert_allclose(losses[DEVICE, "bf16"], expected, atol=0.3)
