"""The prompter as the teacher of pretraining: whatever the model learns, it stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alpro.datasets.tokenization import Tokenizer
from alpro.datasets.transforms.normalize import Normalize, erase_outside
from alpro.families.alpro.pretraining_model import AlproForPretraining
from alpro.optimization.optimizer import build_optimizer, decay_and_no_decay
from tests.factories import MEAN, STD
from tests.pretraining_factories import (
    given,
    make_pairs,
    make_pretraining_model,
    make_pretraining_task,
)
from tests.training.toys import assert_same, make_plan, train

VIDEOS = ("v0", "v1", "v2")


def targets_of(model: AlproForPretraining, tokenizer: Tokenizer) -> Tensor:
    """(B, K) of a batch, as the task asks for them."""
    batch = make_pairs(tokenizer, VIDEOS)
    erased = erase_outside(batch.frames[:, 0], given(batch.region))
    frames = Normalize(MEAN, STD)(erased)
    return given(model.prompter).entity_probabilities(frames, batch.media)


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    groups = decay_and_no_decay(model, weight_decay=0.5)
    return build_optimizer(groups, algorithm="adamw", learning_rate=0.1, betas=(0.9, 0.98))


def test_training_does_not_touch_the_teacher(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = make_pretraining_model(dropout=0.3)
    task, prompter = make_pretraining_task(model), given(model.prompter)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    targets = targets_of(model, tokenizer)
    modes = []

    def validate(_: Any) -> dict[str, float]:
        task.eval()
        return {"loss": 0.0}

    def batch(number: int) -> Any:
        modes.append((task.training, {part.training for part in prompter.modules()}))
        return make_pairs(tokenizer, [f"v{number}.{index}" for index in range(3)])

    train(
        tmp_path / "run",
        plan=make_plan(best_metric="loss", accumulation_steps=2),
        batch=batch,
        task=task,
        validate=validate,
        optimizer=lambda _: optimizer_of(model),
    )
    after = model.state_dict()
    assert modes == [(True, {False})] * 14
    assert_same(
        {name: value for name, value in after.items() if name.startswith("prompter.")},
        {name: value for name, value in before.items() if name.startswith("prompter.")},
    )
    assert torch.equal(targets_of(model, tokenizer), targets)
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert {"mpm_head.0.weight", "temp", "vision_proj.weight"} <= changed
    written = torch.load(tmp_path / "run/ckpt/model_step_last.pt", weights_only=True)
    assert_same(written, dict(after))


def test_the_optimizer_has_nothing_of_the_teacher() -> None:
    model = make_pretraining_model()
    optimizer = optimizer_of(model)
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert not trained & {id(p) for p in given(model.prompter).parameters()}
    assert trained == {id(p) for p in model.parameters() if p.requires_grad}


def test_targets_are_the_same_while_the_model_drops_out(tokenizer: Tokenizer) -> None:
    model = make_pretraining_model(dropout=0.3)
    model.train()
    targets = [targets_of(model, tokenizer) for _ in range(2)]
    assert torch.equal(*targets)
    assert not targets[0].requires_grad
    frames = Normalize(MEAN, STD)(make_pairs(tokenizer, VIDEOS).frames[:, 0])
    twice = [model.encode_video(frames).embedding for _ in range(2)]
    assert not torch.equal(*twice)
