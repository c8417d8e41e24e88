"""Two processes under ``horovodrun`` against one process and against hand numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.factories import TinyExperiment
from tests.pretraining_factories import PretrainExperiment
from tests.training.toys import assert_same_run, metric_lines

ROOT = Path(__file__).parents[2]
HOROVODRUN = Path(sys.executable).parent / "horovodrun"
REQUIRED = os.environ.get("ALPRO_REQUIRE_HOROVOD") == "1"
MISSING = find_spec("horovod") is None
TIMEOUT = 300  # seconds, so that processes that wait for each other end


def run_checks(folder: Path) -> list[dict[str, Any]]:
    """What each of two processes found."""
    done = subprocess.run(
        [str(HOROVODRUN), "-np", "2", sys.executable, "-m", "tests.distributed.horovod_checks",
         str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads((folder / f"found{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.skipif(
    MISSING and not REQUIRED, reason="Horovod is not installed; env/install_pkg.sh builds it"
)
def test_two_processes(tmp_path: Path) -> None:
    """One test, because starting the processes takes most of its time."""
    experiment = TinyExperiment(tmp_path / "experiment", num_train=7)
    changes: dict[str, Any] = {
        **{"debug": 1, "num_train_epochs": 4, "train_batch_size": 2},
        "num_valid": 4,  # every 2 updates, so that stopping at 2 adds no validation
    }
    runs = [("whole", 3), ("stopped", 2), ("stopped", 3)]
    commands = [
        ("retrieval", experiment.arguments(output=name, **changes), steps) for name, steps in runs
    ]
    pretraining = PretrainExperiment(tmp_path / "pretraining", num_val=5)
    changes |= {"gradient_accumulation_steps": 2, "num_train_epochs": 9, "num_valid": 6}
    commands += [
        ("pretraining", pretraining.pretraining(output=name, **changes), steps)
        for name, steps in runs
    ]
    (tmp_path / "runs.json").write_text(json.dumps(commands))
    (tmp_path / "mixed.json").write_text(json.dumps(pretraining.pretraining(**changes)))
    found = run_checks(tmp_path)
    assert [process["place"] for process in found] == [[r, 2, "HorovodEngine"] for r in (0, 1)]
    for process in found:
        assert process["sum"] == {"a": 1.5 + 2.5, "b": 20.0}
        assert process["objects"] == [{"rank": 0, "text": ""}, {"rank": 1, "text": "x"}]
    check_gathering(found)
    check_averaging(found)
    check_loss(found, "contrastive")
    check_loss(found, "questions")
    check_loss(found, "entities")
    check_pretraining(found)
    check_evaluation(tmp_path, found)
    check_answers(tmp_path)
    check_training(experiment.root)
    assert_same_run(pretraining.root / "whole", pretraining.root / "stopped")


def check_gathering(found: list[dict[str, Any]]) -> None:
    """Rows 0 | 1, 1 with weights 1, 2, 3 on rank 0 and 10, 20, 30 on rank 1; gradients summed."""
    for process in found:
        assert process["gather"]["gathered"] == [[0, 0], [1, 1], [1, 1]]
    assert [process["gather"]["gradient"] for process in found] == [
        [[11, 11]],
        [[22, 22], [33, 33]],
    ]


def check_averaging(found: list[dict[str, Any]]) -> None:
    """Inputs are 1 on rank 0 and 2 on rank 1, in two micro-steps; rank 0's weights are all 0."""
    for process in found:
        values = process["average"]
        assert values["prepared"] == [0.0, 0.0, 0.0]
        assert values["learning_rate"] == 0.5
        assert values["gradients"] == [(2 + 4) / 2, (0 + 4) / 2, None]
        assert values["norm"] == pytest.approx((9 + 4) ** 0.5)
        assert values["stepped"] == [-1.5, -1.0, 0.0]


def check_loss(found: list[dict[str, Any]], name: str) -> None:
    """Two processes with a part of a batch each, and one with the whole batch."""
    alone = found[0][f"{name} alone"]
    for process in found:
        together = process[name]
        assert together["loss"] == pytest.approx(alone["loss"], rel=1e-5)
        assert together["gradients"].keys() == alone["gradients"].keys()
        used = 0
        for parameter, gradient in together["gradients"].items():
            expected = alone["gradients"][parameter]
            assert (gradient is None) == (expected is None), parameter
            if gradient is not None:
                scale = max(map(abs, expected))
                # Gradients that are 0 but for rounding (biases of keys) are below the constant.
                atol = 1e-5 * scale + 1e-7
                np.testing.assert_allclose(gradient, expected, atol=atol, err_msg=parameter)
                used += scale > 1e-6
        assert used > 20
    assert found[0][name] == found[1][name]


def check_pretraining(found: list[dict[str, Any]]) -> None:
    """Gradients agree, and in each update all batches of both processes are from one source."""
    assert found[0]["pretraining"] == found[1]["pretraining"]
    gradients = found[0]["pretraining"]["gradients"]
    words = np.array(gradients["text_encoder.cls.predictions.bias"])
    assert words.any()  # though only one of the processes has any word to predict
    first, second = (process["mixed"] for process in found)
    kinds = [kind for kind, _ in first]
    assert kinds == [kind for kind, _ in second]
    assert kinds[::2] == kinds[1::2]
    assert set(kinds) == {"video", "image"}
    assert all(
        not set(one) & set(other) for (_, one), (_, other) in zip(first, second, strict=True)
    )


def check_same_files(folder: Path, *names: str) -> None:
    """Each process of two has found what one process finds alone, to the last bit."""
    for file in names:
        alone = (folder / "rank0of1" / file).read_text()
        assert [(folder / f"rank{rank}of2" / file).read_text() for rank in (0, 1)] == [alone] * 2


def check_answers(folder: Path) -> None:
    """Every question about a readable video is answered once."""
    check_same_files(folder / "answers", "results_all.json", "scores.json")
    scores = json.loads((folder / "answers/rank0of1/scores.json").read_text())
    assert scores["counts"]["overall"][1] == 6 * 4
    assert scores["protocol"]["num_left_out_questions"] == 4


def check_evaluation(folder: Path, found: list[dict[str, Any]]) -> None:
    """The last bit of a score does not depend on how the videos are dealt out."""
    check_same_files(folder / "results", "results.json", "scores.json")
    records = json.loads((folder / "results/rank0of1/results.json").read_text())
    assert {record["vid_id"] for record in records} == {f"v{i}" for i in (0, 1, 2, 3, 4, 6)}
    assert 0 < len(records) < 6 * 12
    alone = found[0]["validation alone"]
    for process in found:
        assert process["validation"] == found[0]["validation"]
        assert process["validation"] == pytest.approx(alone, rel=1e-12)  # sums in another order


def check_training(folder: Path) -> None:
    """A run of two processes that stopped and went on is the one that did not stop."""
    assert_same_run(folder / "whole", folder / "stopped")
    state = torch.load(folder / "whole/restore.pt", weights_only=True)
    assert (state["step"], state["size"], len(state["ranks"])) == (3, 2, 2)
    generators = [rank["random"]["cpu"] for rank in state["ranks"]]
    assert not torch.equal(*generators)
    steps = [(line["step"], line["split"]) for line in metric_lines(folder / "whole")]
    assert steps == sorted([(n, "train") for n in (1, 2, 3)] + [(n, "valid") for n in (0, 2, 3)])
    scores = json.loads((folder / "whole/results_test/step_best_1_mean/scores.json").read_text())
    assert scores["protocol"]["num_processes"] == 2
