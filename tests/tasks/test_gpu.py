"""Finetuning on a GPU: half precision, CUDA generators, resuming."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from tests.factories import TinyExperiment
from tests.question_factories import QaExperiment
from tests.tasks.conftest import Run, content
from tests.tasks.test_run_video_retrieval import RESULTS, DyingDecoder
from tests.training.toys import KilledError, assert_same_run, metric_lines

pytest.importorskip("tensorboard")
pytestmark = pytest.mark.gpu


def similarities(experiment: TinyExperiment, output: str) -> np.ndarray:
    records = content(experiment.root / output / RESULTS / "results.json")
    return np.array([record["sim"] for record in records])


# The scale of fp16's loss starts too high, and each update that overflows is skipped and halves it.
@pytest.mark.parametrize(("precision", "updates"), [("fp32", 2), ("bf16", 2), ("fp16", 16)])
def test_retrieval_runs_from_end_to_end(
    experiment: TinyExperiment, run: Run, precision: str, updates: int
) -> None:
    flags = ("--device", "cuda", "--precision", precision)
    run(experiment.arguments(*flags, num_train_epochs=updates // 2))
    root = experiment.root / "run"
    lines = [line for line in metric_lines(root) if line["split"] == "train"]
    assert len(lines) == updates
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert np.isfinite(lines[-1]["grad_norm"])
    state = torch.load(root / "restore.pt", map_location="cpu", weights_only=True)
    assert {value.dtype for value in state["model"].values()} <= {torch.float32, torch.int64}
    moments = [entry["exp_avg"].abs().max() for entry in state["optimizer"]["state"].values()]
    assert torch.stack(moments).count_nonzero() > 0.9 * len(moments)
    assert bool(state["engine"]) == (precision == "fp16")
    protocol = content(root / RESULTS / "scores.json")["protocol"]
    assert protocol["precision"] == precision


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("reads", [7, 23])
def test_a_killed_run_resumes_bit_for_bit(
    experiment: TinyExperiment,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    reads: int,
) -> None:
    flags = ("--device", "cuda", "--precision", precision)
    changes: dict[str, Any] = {"gradient_accumulation_steps": 2, "num_train_epochs": 4}
    run(experiment.arguments(*flags, output="whole", **changes))
    with monkeypatch.context() as patch:
        patch.setattr(
            "alpro.experiment.data.make_decoder", lambda *_, **__: DyingDecoder(last_read=reads)
        )
        with pytest.raises(KilledError):
            run(experiment.arguments(*flags, **changes))
    run(experiment.arguments(*flags, **changes))
    assert_same_run(experiment.root / "whole", experiment.root / "run")


def test_precisions_and_devices_agree_in_evaluation(experiment: TinyExperiment, run: Run) -> None:
    run(experiment.arguments())
    by_precision = {}
    for device, precision in (("cpu", "fp32"), ("cuda", "fp32"), ("cuda", "bf16")):
        run(experiment.inference("--device", device, "--precision", precision))
        by_precision[device, precision] = similarities(experiment, "run")
    expected = by_precision["cpu", "fp32"]
    assert expected.std() > 0.1
    # Cosines over a temperature of 0.07: TF32 keeps 10 bits and bf16 7 bits of each factor.
    np.testing.assert_allclose(by_precision["cuda", "fp32"], expected, atol=0.05)
    np.testing.assert_allclose(by_precision["cuda", "bf16"], expected, atol=0.5)


def test_attention_kernels_agree(experiment: TinyExperiment, run: Run) -> None:
    run(experiment.arguments("--device", "cuda", dropout=0.0))
    scores = []
    for kernel in ("plain", "sdpa"):
        run(experiment.inference("--device", "cuda", "--attention", kernel))
        text = (experiment.root / "run" / RESULTS / "results.json").read_text()
        scores.append([record["score"] for record in json.loads(text)])
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-3)


# The scale of fp16's loss starts too high, and each update that overflows is skipped and halves it.
@pytest.mark.parametrize(("precision", "epochs"), [("fp32", 1), ("bf16", 1), ("fp16", 4)])
def test_question_answering_runs_from_end_to_end(
    qa_experiment: QaExperiment, run_qa: Run, precision: str, epochs: int
) -> None:
    flags = ("--device", "cuda", "--precision", precision)
    run_qa(qa_experiment.arguments(*flags, num_train_epochs=epochs))
    lines = metric_lines(qa_experiment.root / "run")
    assert all(np.isfinite(line["loss"]) for line in lines)
    probabilities = {}
    for device in ("cuda", "cpu"):
        run_qa(qa_experiment.inference("--device", device, "--precision", "fp32"))
        records = content(qa_experiment.root / "run" / RESULTS / "results_all.json")
        answers = [answer for record in records for answer in record["top5"]]
        probabilities[device] = [answer["probability"] for answer in answers]
    np.testing.assert_allclose(probabilities["cuda"], probabilities["cpu"], atol=0.02)
