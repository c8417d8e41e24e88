"""Prompter, pretraining, finetuning: each run starts from the checkpoint of the one before it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from alpro.datasets.tokenization import Tokenizer, tokenize
from alpro.families.alpro.pretraining import load_teacher
from alpro.families.alpro.pretraining_model import PROMPT_NAMES
from tasks import run_video_qa, run_video_retrieval
from tests.factories import TinyExperiment
from tests.pretraining_factories import ENTITIES, PretrainExperiment, make_prompter
from tests.question_factories import QaExperiment
from tests.tasks.conftest import Run, content, runner
from tests.training.toys import assert_same, metric_lines

TEACHER = "prompter."
KEEP: dict[str, Any] = {"freeze": ["visual_encoder.*", "text_encoder.*", "*_proj.*", "itm_head.*"]}
UNTRAINED = ("temp", "classifier.", "mpm_head.")  # left to later training
RESULTS = "results_test/step_best_1_mean"


def checkpoint(root: Path, name: str = "best") -> Path:
    return root / f"ckpt/model_step_{name}.pt"


def weights(path: Path) -> dict[str, Tensor]:
    return torch.load(path, weights_only=True)


def teacher_in(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(TEACHER): value
        for name, value in state.items()
        if name.startswith(TEACHER)
    }


def kept(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a model that :data:`KEEP` leaves as they are, and the names of retrieval."""
    return {
        name: value for name, value in state.items() if not name.startswith((TEACHER, *UNTRAINED))
    }


def check_teacher(state: dict[str, Tensor], path: Path, tokenizer: Tokenizer) -> None:
    """The teacher in a pretraining checkpoint is that of a file, with the prompts of entities."""
    prompter = make_prompter(seed=7)
    load_teacher(prompter, path)
    prompter.build_prompts(partial(tokenize, tokenizer, max_length=20), ENTITIES)
    taught, expected = teacher_in(state), prompter.state_dict()
    for name in PROMPT_NAMES:
        # By another attention kernel than that of the run
        torch.testing.assert_close(taught.pop(name), expected.pop(name), rtol=1e-5, atol=1e-6)
    assert_same(taught, dict(expected))


def test_a_prompter_a_model_and_a_retrieval_run_follow_each_other(
    experiment: PretrainExperiment,
    run_prompter: Run,
    run: Run,
    tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_prompter(experiment.prompting())
    prompter = checkpoint(experiment.root / "prompter")
    flags = ("--teacher_weights_path", str(prompter), "--weight_decay", "0.1")
    run(experiment.pretraining(*flags, num_train_epochs=1))
    pretrained = checkpoint(experiment.root / "run")
    check_teacher(weights(pretrained), prompter, tokenizer)

    start: dict[str, Any] = {"e2e_weights_path": str(pretrained), "num_train_epochs": 1, **KEEP}
    known = kept(weights(pretrained))
    retrieval = TinyExperiment(tmp_path / "retrieval")
    runner(run_video_retrieval, monkeypatch)(retrieval.arguments(**start))
    assert_same(kept(weights(checkpoint(retrieval.root / "run", "last"))), known)
    assert (retrieval.root / "run" / RESULTS / "scores.json").exists()

    answers = QaExperiment(tmp_path / "qa")
    runner(run_video_qa, monkeypatch)(answers.arguments(**start))
    finetuned = kept(weights(checkpoint(answers.root / "run", "last")))
    assert len(finetuned) > 50
    for name, value in finetuned.items():
        there = name if name in known else name.replace("text_encoder.", "text_encoder.bert.")
        assert torch.equal(value, known[there]), name
    assert content(answers.root / "run" / RESULTS / "scores.json")["counts"]["overall"][1] == 12


def continued(experiment: PretrainExperiment, *flags: str, **changes: Any) -> list[str]:
    """Command line of pretraining that starts from the best checkpoint of ``run``."""
    path = str(checkpoint(experiment.root / "run"))
    return experiment.pretraining("--e2e_weights_path", path, *flags, output="next", **changes)


def hashed(root: Path) -> set[str]:
    """Keys of the files beside annotations by which a run is known."""
    keys = content(root / "log/args.json")["annotations_sha256"]
    return {key for key in keys if key.endswith("_path")}


def test_pretraining_from_a_checkpoint_keeps_its_teacher(
    experiment: PretrainExperiment, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run(experiment.pretraining(num_train_epochs=1))
    torch.save(make_prompter(seed=8).state_dict(), experiment.teacher)  # is not read
    capsys.readouterr()
    run(continued(experiment, num_train_epochs=1, **KEEP))
    notice = "teacher_weights_path has no effect: "
    assert capsys.readouterr().err.count(notice) == 1
    assert hashed(experiment.root / "next") == {"entity_file_path"}
    before = weights(checkpoint(experiment.root / "run"))
    after = weights(checkpoint(experiment.root / "next", "last"))
    assert_same(kept(after), kept(before))
    assert_same(teacher_in(after), teacher_in(before))
    del experiment.values["teacher_weights_path"]
    run(continued(experiment, "--dry_run", "1"))
    assert notice not in capsys.readouterr().err


def test_the_entity_loss_can_be_added_later(
    experiment: PretrainExperiment, run: Run, tokenizer: Tokenizer
) -> None:
    run(experiment.pretraining("--use_mpm", "0", num_train_epochs=1))
    before = weights(checkpoint(experiment.root / "run"))
    run(continued(experiment, num_train_epochs=1, **KEEP))
    assert hashed(experiment.root / "next") == {"entity_file_path", "teacher_weights_path"}
    after = weights(checkpoint(experiment.root / "next", "last"))
    check_teacher(after, experiment.teacher, tokenizer)
    assert_same(kept(after), kept(before))
    assert all("mpm_loss" in line for line in metric_lines(experiment.root / "next"))


def test_the_entity_loss_can_be_left_out_later(experiment: PretrainExperiment, run: Run) -> None:
    run(experiment.pretraining(num_train_epochs=1))
    run(continued(experiment, "--use_mpm", "0", num_train_epochs=1))
    after = weights(checkpoint(experiment.root / "next"))
    assert teacher_in(after) == {}


def test_the_model_itself_can_teach_the_next(
    experiment: PretrainExperiment, run: Run, tokenizer: Tokenizer
) -> None:
    run(experiment.pretraining(num_train_epochs=1))
    first = checkpoint(experiment.root / "run")
    flags = ("--teacher_weights_path", str(first))
    run(experiment.pretraining(*flags, num_train_epochs=1, output="next"))
    check_teacher(weights(checkpoint(experiment.root / "next")), first, tokenizer)


def test_a_prompter_starts_from_another(experiment: PretrainExperiment, run_prompter: Run) -> None:
    flags = ("--e2e_weights_path", str(experiment.teacher))
    run_prompter(experiment.prompting(*flags, num_train_epochs=1, **KEEP))
    before = kept(weights(experiment.teacher))
    after = kept(weights(checkpoint(experiment.root / "prompter")))
    for name in PROMPT_NAMES:  # of 9 entities there, of 5 here
        del before[name], after[name]
    assert_same(after, before)
