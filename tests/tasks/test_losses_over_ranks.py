"""Losses over pairs of several processes: those of one process with all of the pairs.

That one process draws from its own pairs, and does without whatever processes exchange.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from alpro.datasets.annotations import CaptionRow
from alpro.datasets.tokenization import Tokenizer
from alpro.distributed.engine import Engine, SingleProcess
from alpro.tasks.pairs import gather_batch_metadata
from alpro.training.objective import Objective
from tests.distributed.jobs import on_processes
from tests.evaluation.ranks import on_ranks
from tests.factories import CPU, caption_of, make_batch, make_model, make_tokenizer
from tests.pretraining_factories import make_pairs, make_pretraining_model, make_pretraining_task
from tests.tasks.pair_tasks import (
    LossAndGradients,
    assert_same,
    hardest_negatives,
    hardest_negatives_within,
    loss_and_gradients,
    make_retrieval_task,
)

COUNTS = [2, 1, 3]  # pairs of three processes
VIDEOS = ("v0", "v1", "v2", "v0", "v4", "v1")  # two are on two of them

MakeTask = Callable[[Engine], Objective]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return make_tokenizer(tmp_path / "tokenizer")


def captioned(tokenizer: Tokenizer, *, num_clips: int = 1) -> Any:
    """A batch of retrieval; its longest caption is on the second process."""
    lengths = (0, 1, 3, 2, 0, 1)
    rows = [CaptionRow(caption_of(8 + i), v) for i, v in zip(lengths, VIDEOS, strict=True)]
    return make_batch(tokenizer, rows, num_clips=num_clips)


def share(whole: Any, engine: Engine, counts: list[int]) -> Any:
    """The pairs of one process, their texts padded to the longest of them."""
    bounds = [0, *accumulate(counts)]
    own = slice(bounds[engine.rank], bounds[engine.rank + 1])
    length = int(whole.text_mask[own].sum(dim=1).max())
    cut: dict[str, Any] = {"frames": whole.frames[own], "video_ids": whole.video_ids[own]}
    for name in ("text_ids", "text_mask", "masked_ids", "mlm_labels"):
        if (tensor := getattr(whole, name, None)) is not None:
            cut[name] = tensor[own, :length]
    if getattr(whole, "region", None) is not None:
        cut["region"] = whole.region[own]
    return replace(whole, **cut)


def over_ranks(make: MakeTask, whole: Any, counts: list[int]) -> LossAndGradients:
    """Loss and gradients of several ranks, the same on each."""

    def work(engine: Engine) -> tuple[float, dict[str, Any]]:
        found = loss_and_gradients(make(engine), share(whole, engine, counts), engine=engine)
        return found.loss, {name: part.numpy() for name, part in found.gradients.items()}

    results = on_processes(len(counts), work)
    found = [
        LossAndGradients(loss, {name: torch.from_numpy(part) for name, part in gradients.items()})
        for loss, gradients in results
    ]
    for other in found[1:]:
        assert_same(other, found[0], tolerance=0.0)
    return found[0]


def alone(make: MakeTask, whole: Any) -> LossAndGradients:
    engine = SingleProcess(CPU, scale_loss=False)
    return loss_and_gradients(make(engine), whole, engine=engine)


@pytest.mark.parametrize(
    ("losses", "counts", "options"),
    [
        ("itc", COUNTS, {}),
        ("itc", COUNTS, {"mask_same_video": True, "grad_cache_size": 2}),
        ("itc itm", [3, 3], {}),
        ("itc itm", COUNTS, {"mask_same_video": True}),
        ("itc itm", COUNTS, {"grad_cache_size": 2}),
        ("itm", COUNTS, {}),
    ],
)
def test_retrieval_losses_with_negatives_of_all_ranks_equal_one_process(
    tokenizer: Tokenizer, losses: str, counts: list[int], options: dict[str, Any]
) -> None:
    def make(engine: Engine) -> Objective:
        return make_retrieval_task(
            make_model(),
            tokenizer,
            engine=engine,
            use_itc="itc" in losses,
            use_itm="itm" in losses,
            negatives_of_all_ranks=engine.size > 1,
            **options,
        )

    whole = captioned(tokenizer)
    with hardest_negatives():
        expected = alone(make, whole)
        assert_same(over_ranks(make, whole, counts), expected)
    if "itm" in losses:  # or the negatives would all be of the own process anyway
        with hardest_negatives_within(counts):
            assert alone(make, whole).loss != pytest.approx(expected.loss, rel=1e-3)


@pytest.mark.parametrize(
    ("how", "options"), [("lse", {"grad_cache_size": 2}), ("max", {}), ("mean", {})]
)
def test_retrieval_losses_over_several_clips_equal_one_process(
    tokenizer: Tokenizer, how: str, options: dict[str, Any]
) -> None:
    def make(engine: Engine) -> Objective:
        return make_retrieval_task(
            make_model(),
            tokenizer,
            engine=engine,
            clip_aggregation=how,
            negatives_of_all_ranks=engine.size > 1,
            **options,
        )

    whole = captioned(tokenizer, num_clips=2)
    with hardest_negatives():
        assert_same(over_ranks(make, whole, COUNTS), alone(make, whole))


def hinge_loss(
    videos: Tensor, texts: Tensor, *, temperature: Tensor, exclude: Tensor | None
) -> Tensor:
    """A sum over all pairs in place of a mean over rows: no rank's share of it is a loss."""
    scores = videos @ texts.t() / temperature  # (G, G)
    hinge = (scores - scores.diagonal() + 1).clamp(min=0)
    return hinge.sum() if exclude is None else hinge.masked_fill(exclude, 0).sum()


@pytest.mark.parametrize(
    ("num_clips", "options"),
    [(1, {}), (1, {"mask_same_video": True}), (2, {"mask_same_video": True, "grad_cache_size": 2})],
)
def test_a_loss_over_the_global_batch_equals_that_of_one_process(
    tokenizer: Tokenizer, num_clips: int, options: dict[str, Any]
) -> None:
    def make(engine: Engine) -> Objective:
        return make_retrieval_task(
            make_model(), tokenizer, engine=engine, use_itm=False, pair_loss=hinge_loss, **options
        )

    whole = captioned(tokenizer, num_clips=num_clips)
    assert_same(over_ranks(make, whole, COUNTS), alone(make, whole))


@pytest.mark.parametrize(("mask", "num_clips"), [(False, 1), (True, 1), (True, 2)])
def test_retrieval_losses_with_negatives_of_the_own_rank(
    tokenizer: Tokenizer, mask: bool, num_clips: int
) -> None:
    def make(engine: Engine) -> Objective:
        return make_retrieval_task(make_model(), tokenizer, engine=engine, mask_same_video=mask)

    whole = captioned(tokenizer, num_clips=num_clips)
    with hardest_negatives():
        found = over_ranks(make, whole, COUNTS)
    with hardest_negatives_within(COUNTS):
        assert_same(found, alone(make, whole))


@pytest.mark.parametrize(
    ("losses", "counts", "size"),
    [
        (("itc", "itm"), COUNTS, 0),
        (("itm", "mpm"), [3, 3], 0),
        (("itc", "itm", "mpm"), [3, 3], 2),
    ],
)
def test_pretraining_losses_with_negatives_of_all_ranks_equal_one_process(
    tokenizer: Tokenizer, losses: tuple[str, ...], counts: list[int], size: int
) -> None:
    def make(engine: Engine) -> Objective:
        return make_pretraining_task(
            make_pretraining_model(),
            *losses,
            engine=engine,
            negatives_of_all_ranks=engine.size > 1,
            grad_cache_size=size,
        )

    whole = make_pairs(tokenizer, VIDEOS)
    with hardest_negatives():
        assert_same(over_ranks(make, whole, counts), alone(make, whole))


def test_one_video_on_all_ranks_has_no_negatives(tokenizer: Tokenizer) -> None:
    def make(engine: Engine) -> Objective:
        return make_retrieval_task(
            make_model(),
            tokenizer,
            engine=engine,
            mask_same_video=True,
            negatives_of_all_ranks=engine.size > 1,
        )

    whole = make_batch(tokenizer, [CaptionRow(caption_of(i), "v0") for i in range(3)])
    assert_same(over_ranks(make, whole, [2, 1]), alone(make, whole))


def test_metadata_of_the_global_batch() -> None:
    ids = [["a", "b"], ["a"], ["c", "a", "c"]]

    def work(engine: Engine) -> Any:
        gathered = gather_batch_metadata(
            ids[engine.rank],
            num_tokens=(4, 9, 5)[engine.rank],
            temperature=torch.tensor(0.1),
            engine=engine,
            mask_same_video=True,
        )
        assert gathered.exclude is not None
        return (
            gathered.own,
            list(gathered.counts),
            gathered.num_tokens,
            gathered.exclude.int().tolist(),
        )

    assert on_ranks(3, work) == [
        (slice(0, 2), COUNTS, 9, [[0, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0]]),
        (slice(2, 3), COUNTS, 9, [[1, 0, 0, 0, 1, 0]]),
        (
            slice(3, 6),
            COUNTS,
            9,
            [[0, 0, 0, 0, 0, 1], [1, 0, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0]],
        ),
    ]
