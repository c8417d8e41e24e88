"""Inference of a run that is not there, is another one, or is asked for what it has not."""

from __future__ import annotations

import math

import pytest
import torch

from alpro.datasets.annotations import CaptionRow
from alpro.errors import FAILURE_EXIT_CODE, USER_ERROR_EXIT_CODE
from tests.factories import TinyExperiment, make_model, write_captions
from tests.question_factories import QaExperiment
from tests.tasks.conftest import Refuse, Run


def test_inference_without_a_trained_run_is_refused(
    experiment: TinyExperiment, refused: Refuse
) -> None:
    message = refused(experiment.inference())
    assert "output_dir is not the folder of a trained run" in " ".join(message.split())
    (experiment.root / "run").touch()
    message = " ".join(refused(experiment.inference()).split())
    assert f"{experiment.root / 'run'}: this is a file, not a folder, so output_dir" in message


def test_wrong_paths_of_inference_are_named(
    experiment: TinyExperiment, run: Run, refused: Refuse
) -> None:
    run(experiment.arguments())
    assert "/gone.jsonl" in refused(experiment.inference("--inference_txt_db", "/gone.jsonl"))
    write_captions(experiment.root / "txt/test.jsonl", [CaptionRow("a ball", "lost")])
    assert "test: none of the 1 videos" in refused(experiment.inference())
    named = refused(experiment.inference("--inference_split", "mine"))
    assert "mine: none of the 1 videos" in named
    assert "/gone/videos" in refused(experiment.inference("--inference_img_db", "/gone/videos"))


def test_a_checkpoint_that_the_run_lacks_is_named_with_those_it_has(
    experiment: TinyExperiment, run: Run, refused: Refuse
) -> None:
    run(experiment.arguments())
    ckpt = experiment.root / "run/ckpt"
    message = refused(experiment.inference("--inference_model_step", "77"))
    assert f"inference_model_step is 77; {ckpt} has 2, 4, best, last.\n" in message
    message = refused(experiment.inference("--e2e_weights_path", str(ckpt)))
    reason = f"is a folder; name a file such as {ckpt}/model_step_best.pt.\n"
    assert f"e2e_weights_path: {ckpt} {reason}" in message
    message = refused(experiment.inference("--e2e_weights_path", str(ckpt.parent)))
    assert f"e2e_weights_path: {ckpt.parent} {reason}" in message
    for path in ckpt.iterdir():
        path.unlink()
    message = refused(experiment.arguments())
    assert f"{ckpt}/model_step_best.pt: the best checkpoint of the run is gone. Put" in message
    message = refused(experiment.inference())
    assert f"{ckpt}: no checkpoint yet; continue the training first.\n" in message


@pytest.mark.parametrize(
    ("number", "exit_code", "reason"),
    [
        (math.nan, USER_ERROR_EXIT_CODE, "numbers are NaN or infinite, as of a run that diverged"),
        (1e30, FAILURE_EXIT_CODE, "retrieval scores are NaN. The weights are those of a run that"),
    ],
)
def test_weights_of_a_diverged_run_are_blamed(
    experiment: TinyExperiment,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    number: float,
    exit_code: int,
    reason: str,
) -> None:
    path = experiment.root / "diverged.pt"
    state = make_model().state_dict()
    torch.save({k: v.fill_(number) if v.is_floating_point() else v for k, v in state.items()}, path)
    with pytest.raises(SystemExit) as ended:
        run(experiment.inference("--e2e_weights_path", str(path)))
    assert ended.value.code == exit_code
    message = capsys.readouterr().err.split("error: ")[-1]
    assert message.startswith(f"{path}: ")
    assert reason in message


def test_the_run_of_another_task_is_refused(
    experiment: TinyExperiment, run: Run, refused_qa: Refuse
) -> None:
    run(experiment.arguments())
    questions = QaExperiment(experiment.root / "questions")
    message = refused_qa([*questions.inference(), "--output_dir", str(experiment.root / "run")])
    assert message == (
        f"{experiment.root / 'run'} is a run of src/tasks/run_video_retrieval.py; use that script, "
        "or name another folder\n"
    )


def test_a_video_encoder_that_was_edited_is_refused(
    experiment: TinyExperiment, run: Run, refused: Refuse
) -> None:
    run(experiment.arguments())
    path = experiment.root / "video_model.json"
    text = path.read_text()
    path.write_text(text.replace('"num_heads": 2', '"num_heads": 4, "pooling": "mean"'))
    message = refused(experiment.inference("--visual_model_cfg", str(path)))
    assert (
        f"visual_model_cfg: {path} is not the one of {experiment.root}/run/log/args.json:"
        " num_heads 2 there, 4 now; pooling 'cls' there, 'mean' now. Give --visual_model_cfg FILE"
    ) in message
    changes = '"gradient_checkpointing": true, "drop_rate": 0.3'
    path.write_text(text.replace('"drop_rate": 0.1', changes))
    run(experiment.inference("--visual_model_cfg", str(path)))
