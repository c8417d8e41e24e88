"""Classifiers of checkpoints that question answering starts from: kept, replaced or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.factories import TinyExperiment
from tests.question_factories import ANSWERS, QaExperiment
from tests.tasks.conftest import Refuse, Run

TAKEN_OVER = "its classifier is taken over; new_classifier 1 trains a new one"


def weights_of(path: Path) -> dict[str, Tensor]:
    return torch.load(path, weights_only=True)


@pytest.fixture
def trained(qa_experiment: QaExperiment, run_qa: Run) -> Path:
    """A checkpoint of the run in ``run``."""
    run_qa(qa_experiment.arguments(num_train_epochs=1))
    return qa_experiment.root / "run/ckpt/model_step_best.pt"


def start(checkpoint: Path) -> dict[str, Any]:
    """Changes to the config: from a checkpoint, which is hardly trained further."""
    return {"random_init": 0, "e2e_weights_path": str(checkpoint), "learning_rate": 1e-12}


def test_a_pretrained_checkpoint_starts_the_model(
    qa_experiment: QaExperiment, run_qa: Run, run: Run, tmp_path: Path
) -> None:
    retrieval = TinyExperiment(tmp_path / "retrieval")
    run(retrieval.arguments())
    checkpoint = tmp_path / "retrieval/run/ckpt/model_step_last.pt"
    run_qa(qa_experiment.arguments(**start(checkpoint)))
    before = weights_of(checkpoint)
    after = weights_of(qa_experiment.root / "run/ckpt/model_step_last.pt")
    word_embeddings = "embeddings.word_embeddings.weight"
    torch.testing.assert_close(
        after[f"text_encoder.{word_embeddings}"], before[f"text_encoder.bert.{word_embeddings}"]
    )
    assert after.keys() - before.keys() >= {"classifier.0.weight", "classifier.2.weight"}


def test_a_finetuned_checkpoint_starts_retrieval(trained: Path, tmp_path: Path, run: Run) -> None:
    """It has no language head, which retrieval keeps but does not use."""
    retrieval = TinyExperiment(tmp_path / "retrieval")
    run(retrieval.arguments(**start(trained)))
    before = weights_of(trained)
    after = weights_of(tmp_path / "retrieval/run/ckpt/model_step_last.pt")
    name = "encoder.layer.1.output.dense.weight"
    torch.testing.assert_close(after[f"text_encoder.bert.{name}"], before[f"text_encoder.{name}"])
    log = (tmp_path / "retrieval/run/log/log.txt").read_text()
    assert f"{trained}: 6 tensors text_encoder.cls.* missing, left as initialised" in log
    assert "4 tensors classifier.* not used" in log


def test_a_classifier_is_kept_or_replaced_by_a_new_one(
    qa_experiment: QaExperiment, trained: Path, run_qa: Run
) -> None:
    before, root = weights_of(trained), qa_experiment.root
    for output, flags in (("same", ()), ("new", ("--new_classifier", "1"))):
        run_qa(qa_experiment.arguments(*flags, output=output, **start(trained)))
        after = weights_of(root / output / "ckpt/model_step_last.pt")
        log = (root / output / "log/log.txt").read_text()
        change = after["classifier.2.bias"] - before["classifier.2.bias"]
        taken_over = bool(change.abs().max() < 1e-6)
        assert taken_over == (output == "same") == (f"{trained}: {TAKEN_OVER}" in log)


@pytest.mark.parametrize("num_outputs", [923, 2423])
def test_a_classifier_of_another_size_is_refused(
    qa_experiment: QaExperiment,
    trained: Path,
    run_qa: Run,
    refused_qa: Refuse,
    num_outputs: int,
) -> None:
    weights, other = weights_of(trained), qa_experiment.root / "other.pt"
    for name in ("classifier.2.weight", "classifier.2.bias"):
        weights[name] = torch.cat([weights[name], weights[name]])[:num_outputs]
    torch.save(weights, other)
    labels = qa_experiment.root / "ans2label.json"
    reason = (
        f"{other}: its classifier has {num_outputs} outputs, this model's 1500, because there are "
        f"9 answers in {labels} (at least 1500 outputs). Give as ans2label_path the file that it "
        "was trained with"
    )
    in_training = refused_qa(qa_experiment.arguments(output="second", **start(other)))
    assert f"{reason}; or set new_classifier to 1, to train a new one.\n" in in_training
    in_inference = refused_qa(qa_experiment.inference("--e2e_weights_path", str(other)))
    assert f"{reason}.\n" in in_inference
    run_qa(qa_experiment.arguments("--new_classifier", "1", output="second", **start(other)))


def test_a_model_of_another_width_is_refused_with_all_differences(
    qa_experiment: QaExperiment, trained: Path, refused_qa: Refuse
) -> None:
    weights, other = weights_of(trained), qa_experiment.root / "other.pt"
    weights["classifier.2.weight"] = torch.zeros(9, 5)
    weights["temp"] = torch.zeros(2)
    torch.save(weights, other)
    message = refused_qa(qa_experiment.inference("--e2e_weights_path", str(other)))
    assert "classifier.2.weight: (9, 5) there, (1500, 64) here" in message
    assert "temp: (2,) there, () here" in message


def test_inference_needs_a_classifier(
    qa_experiment: QaExperiment, trained: Path, refused_qa: Refuse
) -> None:
    headless = qa_experiment.root / "headless.pt"
    weights = weights_of(trained)
    torch.save({n: w for n, w in weights.items() if not n.startswith("classifier")}, headless)
    message = refused_qa(qa_experiment.inference("--e2e_weights_path", str(headless)))
    assert f"{headless}: this checkpoint has no classifier of answers" in message
    del weights["classifier.2.bias"]
    torch.save(weights, headless)  # half a classifier is not completed at random
    for arguments in (
        qa_experiment.inference("--e2e_weights_path", str(headless)),
        qa_experiment.arguments(output="second", **start(headless)),
    ):
        assert "the checkpoint lacks: classifier.2.bias" in refused_qa(arguments)


def test_labels_that_meant_other_answers_are_refused(
    qa_experiment: QaExperiment, trained: Path, run_qa: Run, refused_qa: Refuse
) -> None:
    used = qa_experiment.root / "ans2label.json"
    kept = qa_experiment.root / "run/log/ans2label.json"
    other = qa_experiment.write("other.json", {a: n for n, a in enumerate(reversed(ANSWERS))})
    reason = (
        f"ans2label_path: {other} is not the map that {trained} was trained with, {kept}: label 0 "
        f"is {ANSWERS[0]!r} there, {ANSWERS[-1]!r} here. Give --ans2label_path {kept}"
    )
    flags = ("--ans2label_path", str(other))
    second = qa_experiment.arguments(*flags, output="second", **start(trained))
    assert f"{reason}; or set new_classifier to 1, to train a new one.\n" in refused_qa(second)
    assert not (qa_experiment.root / "second").exists()
    run_qa([*second, "--new_classifier", "1"])
    assert f"{reason}.\n" in refused_qa(qa_experiment.inference(*flags))
    used.write_text(other.read_text())  # the file itself has changed
    message = refused_qa(qa_experiment.inference())
    assert f"{reason.replace(str(other), str(used))}.\n" in message
    run_qa(qa_experiment.inference("--ans2label_path", str(kept)))
    foreign = trained.rename(qa_experiment.root / "downloaded.pt")  # of no run that is known
    run_qa(qa_experiment.inference("--e2e_weights_path", str(foreign)))


def test_answers_may_be_added_at_the_end_alone(
    qa_experiment: QaExperiment, trained: Path, run_qa: Run, refused_qa: Refuse
) -> None:
    def flags(answers: tuple[str, ...]) -> list[str]:
        path = qa_experiment.write("changed.json", {a: n for n, a in enumerate(answers)})
        return qa_experiment.inference("--ans2label_path", str(path))

    run_qa(flags((*ANSWERS, "nobody")))
    last = len(ANSWERS) - 1
    assert f"label {last} is {ANSWERS[-1]!r} there, no answer here" in refused_qa(
        flags(ANSWERS[:-1])
    )
    (trained.parents[1] / "log/ans2label.json").unlink()  # a run of before it was kept
    run_qa(flags(ANSWERS[:-1]))


def test_a_new_classifier_without_effect_is_warned_of(
    qa_experiment: QaExperiment,
    trained: Path,
    run_qa: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    notice, flags = "new_classifier has no effect: ", ("--new_classifier", "1")
    run_qa(qa_experiment.arguments(*flags, output="second"))
    assert f"{notice}e2e_weights_path is not given" in capsys.readouterr().err
    run_qa(qa_experiment.arguments(*flags, output="third", **start(trained)))
    run_qa(qa_experiment.inference(output="third"))  # the trained run's was of use there
    assert notice not in capsys.readouterr().err
    run_qa(qa_experiment.inference(*flags))
    assert f"{notice}inference trains no classifier" in capsys.readouterr().err
