"""Batches that go through the model in parts: the same numbers with less memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

from alpro.datasets.annotations import CaptionRow
from alpro.datasets.tokenization import Tokenizer
from alpro.distributed.engine import autocast
from alpro.families.alpro.model import AlproModel
from alpro.modeling.timesformer import TimeSformer
from alpro.training.objective import Objective
from tests.factories import (
    CPU,
    caption_of,
    make_batch,
    make_model,
    make_retrieval_set,
    make_tokenizer,
    rows_of,
)
from tests.modeling.held import Held
from tests.pretraining_factories import (
    make_pairs,
    make_pretraining_model,
    make_pretraining_task,
    make_prompter,
    make_prompter_task,
)
from tests.tasks.pair_tasks import (
    LossAndGradients,
    assert_same,
    hardest_negatives,
    loss_and_gradients,
    make_retrieval_task,
)

TASKS = ("retrieval", "prompter", "pretraining")
NUM_PAIRS = 5

MakeTask = Callable[..., tuple[Objective, Any]]


@pytest.fixture
def make(tmp_path: Path) -> MakeTask:
    """Make one of the tasks, and a batch of some pairs."""
    tokenizer = make_tokenizer(tmp_path / "tokenizer")

    def make_task(
        kind: str,
        *,
        size: int,
        dropout: float = 0.0,
        num_pairs: int = NUM_PAIRS,
        num_clips: int = 1,
    ) -> tuple[Objective, Any]:
        videos = [f"v{number}" for number in range(num_pairs)]
        task: Objective
        if kind == "retrieval":
            model = make_model(dropout=dropout)
            task = make_retrieval_task(
                model, tokenizer, grad_cache_size=size, clip_aggregation="lse"
            )
            return task, make_batch(tokenizer, alike(num_pairs), num_clips=num_clips)
        if kind == "prompter":
            task = make_prompter_task(make_prompter(dropout=dropout), grad_cache_size=size)
            return task, make_pairs(tokenizer, videos, mlm_probability=None, with_regions=False)
        task = make_pretraining_task(make_pretraining_model(dropout=dropout), grad_cache_size=size)
        return task, make_pairs(tokenizer, videos)

    return make_task


def alike(num_pairs: int) -> list[CaptionRow]:
    """Pairs whose captions are all of the same length."""
    return [CaptionRow(caption_of(4 * number), f"v{number}") for number in range(num_pairs)]


def seeded(task: Objective, *batches: Any) -> LossAndGradients:
    torch.manual_seed(3)
    return loss_and_gradients(task, *batches)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("kind", TASKS)
def test_loss_and_gradients_are_those_of_the_whole_batch(
    make: MakeTask, kind: str, size: int
) -> None:
    # Without dropout only the negatives are drawn, hence the same ones.
    assert_same(seeded(*make(kind, size=size)), seeded(*make(kind, size=0)))


@pytest.mark.parametrize("size", [1, 4])
def test_gradients_over_several_clips_are_those_of_the_whole_batch(
    make: MakeTask, size: int
) -> None:
    cut, whole = (seeded(*make("retrieval", size=size, num_clips=3)) for size in (size, 0))
    assert_same(cut, whole)


@pytest.mark.parametrize("kind", TASKS)
def test_every_encoder_runs_in_chunks(make: MakeTask, kind: str) -> None:
    task, batch = make(kind, size=2)
    seen: list[int] = []
    for name, module in task.model.named_modules():
        if isinstance(module, TimeSformer | nn.LayerNorm) and "cls.predictions" not in name:
            module.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    task(batch)
    assert set(seen) == {2, 1}  # 5 pairs, and the rows that they make elsewhere


def test_the_chunks_of_several_clips_are_no_larger(make: MakeTask) -> None:
    task, batch = make("retrieval", size=2, num_clips=3)
    assert isinstance(task.model, AlproModel)
    seen: list[int] = []
    for name in ("visual_encoder.model", "text_encoder.bert.encoder.layer.1"):
        module = task.model.get_submodule(name)
        module.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    task(batch)
    assert max(seen) == 2


@pytest.mark.parametrize("kind", TASKS)
def test_dropout_masks_are_the_same_when_recomputed(make: MakeTask, kind: str) -> None:
    recomputed, again = (seeded(*make(kind, size=2, dropout=0.3)) for _ in range(2))
    with mock.patch("alpro.modeling.grad_cache.checkpoint", stored):
        expected = seeded(*make(kind, size=2, dropout=0.3))
    assert recomputed.loss == again.loss == expected.loss
    for name, gradient in expected.gradients.items():
        assert torch.equal(recomputed.gradients[name], gradient), name
        assert torch.equal(again.gradients[name], gradient), name
    assert seeded(*make(kind, size=0)).loss != expected.loss


def stored(compute: Callable[..., Any], *rows: Any, use_reentrant: bool) -> Any:
    """In place of a checkpoint: nothing is computed again."""
    assert not use_reentrant
    return compute(*rows)


@pytest.mark.parametrize("kind", TASKS)
def test_bf16_gradients_are_those_of_the_whole_batch(make: MakeTask, kind: str) -> None:
    results = []
    for size in (0, 2):
        task, batch = make(kind, size=size)
        with autocast("bf16", CPU), hardest_negatives():
            results.append(loss_and_gradients(task, batch))
    whole, cut = results
    assert cut.loss == pytest.approx(whole.loss, rel=0.02)
    name = "visual_encoder.model.blocks.0.mlp.fc1.weight"
    likeness = torch.cosine_similarity(
        cut.gradients[name].flatten(), whole.gradients[name].flatten(), dim=0
    )
    assert likeness > 0.99


def test_gradients_of_accumulated_batches_are_those_of_whole_batches(make: MakeTask) -> None:
    results = []
    for size in (0, 2):
        task, batch = make("retrieval", size=size)
        _, other = make("retrieval", size=size, num_pairs=3)
        results.append(seeded(task, batch, other))
    assert_same(results[1], results[0])


def test_gradients_with_checkpointed_blocks_are_those_of_the_whole_batch(make: MakeTask) -> None:
    expected = seeded(*make("retrieval", size=0))
    task, batch = make("retrieval", size=2)
    assert isinstance(task.model, AlproModel)
    video_model = task.model.visual_encoder.get_submodule("model")
    video_model.gradient_checkpointing = True  # type: ignore[assignment]
    assert_same(seeded(task, batch), expected)


def held_at_most(make: MakeTask, kind: str, *, size: int, num_pairs: int) -> int:
    """Bytes that the layers' activations take, at most."""
    task, batch = make(kind, size=size, num_pairs=num_pairs)
    model = task.model
    assert isinstance(model, AlproModel)
    inner = [*model.visual_encoder.get_submodule("model.blocks").modules()]
    for layer in model.text_encoder.layers:  # type: ignore[union-attr]
        inner += layer.modules()
    held = Held(module for module in inner if isinstance(module, nn.Linear))
    loss_and_gradients(task, batch)
    return held.most


def test_the_layers_hold_the_activations_of_one_chunk(make: MakeTask) -> None:
    few = held_at_most(make, "retrieval", size=2, num_pairs=4)
    assert held_at_most(make, "retrieval", size=2, num_pairs=10) == few
    assert held_at_most(make, "retrieval", size=4, num_pairs=10) == 2 * few
    assert few < held_at_most(make, "retrieval", size=0, num_pairs=2)
    assert 8 * few < held_at_most(make, "retrieval", size=0, num_pairs=10)


def test_evaluation_runs_without_chunks(tmp_path: Path) -> None:
    tokenizer: Tokenizer = make_tokenizer(tmp_path / "tokenizer")
    data = make_retrieval_set(tmp_path / "set", rows_of(4), chunk=4)
    model = make_model()
    rows: list[list[int]] = []
    values = []
    for size in (0, 1):
        task = make_retrieval_task(model, tokenizer, grad_cache_size=size)
        with mock.patch.object(model, "match", wraps=model.match) as match:
            values.append(task.evaluate(data))
        rows.append([len(call.args[0].mask) for call in match.call_args_list])
    assert values[0] == values[1]
    assert rows[0] == rows[1]
