"""Training on several clips of each video, from command line to files, over fake videos."""

from __future__ import annotations

import math
from typing import Any

import pytest

from alpro.tasks.retrieval.objective import RetrievalObjective
from tests.factories import TinyExperiment
from tests.question_factories import QaExperiment
from tests.tasks.conftest import Run
from tests.training.toys import DyingDecoder, KilledError, assert_same_run, metric_lines

SEVERAL_CLIPS: dict[str, Any] = {
    **{"train_n_clips": 2, "score_agg_func": "lse", "inference_n_clips": 2},
    **{"gradient_accumulation_steps": 2, "num_train_epochs": 4, "grad_cache_size": 2},
}


def test_a_killed_run_of_several_clips_resumes_bit_for_bit(
    experiment: TinyExperiment, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    forward = RetrievalObjective.forward

    def noting(self: RetrievalObjective, batch: Any) -> Any:
        seen.append(tuple(batch.frames.shape))
        return forward(self, batch)

    monkeypatch.setattr(RetrievalObjective, "forward", noting)
    run(experiment.arguments(output="whole", **SEVERAL_CLIPS))
    assert set(seen) == {(3, 2, 2, 3, 32, 32)}
    with monkeypatch.context() as patch:
        patch.setattr(
            "alpro.experiment.data.make_decoder", lambda *_, **__: DyingDecoder(last_read=16)
        )
        with pytest.raises(KilledError):
            run(experiment.arguments(**SEVERAL_CLIPS))
    run(experiment.arguments(**SEVERAL_CLIPS))
    assert_same_run(experiment.root / "whole", experiment.root / "run")
    results = [
        experiment.root / name / "results_test/step_best_2_lse/results.json"
        for name in ("whole", "run")
    ]
    assert results[0].read_text() == results[1].read_text()


@pytest.mark.parametrize("how", ["mean", "lse"])
def test_training_on_several_clips(qa_experiment: QaExperiment, run_qa: Run, how: str) -> None:
    changes: dict[str, Any] = {"train_n_clips": 2, "score_agg_func": how}
    for output in ("run", "again"):
        run_qa(qa_experiment.arguments(output=output, **changes))
    assert_same_run(*(qa_experiment.root / name for name in ("run", "again")))
    run_qa(qa_experiment.arguments(output="one", score_agg_func=how))
    several, one = (
        [line["loss"] for line in metric_lines(qa_experiment.root / name)]
        for name in ("run", "one")
    )
    assert several[0] == one[0]  # validation reads one clip of each video
    assert all(math.isfinite(loss) for loss in several)
    assert several != one
