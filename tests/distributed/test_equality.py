"""Several processes learn what one does, under either engine and wherever the processes are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from alpro.datasets.tokenization import Tokenizer
from alpro.datasets.transforms.normalize import Normalize
from alpro.distributed.engine import Engine, SingleProcess
from alpro.tasks.pretraining.batches import IGNORED
from alpro.tasks.question_answering.objective import QuestionAnsweringObjective
from alpro.training.objective import Objective
from alpro.training.train_state import seed_everything
from tests.distributed.jobs import both_engines, on_processes
from tests.factories import CPU, MEAN, STD, make_batch, make_model, make_tokenizer, rows_of
from tests.pretraining_factories import (
    given,
    make_pairs,
    make_pretraining_model,
    make_pretraining_task,
    make_prompter,
    make_prompter_task,
)
from tests.question_factories import (
    make_answer_evaluator,
    make_answer_model,
    make_question_batch,
    questions_of,
)
from tests.tasks.pair_tasks import (
    LossAndGradients,
    assert_same,
    loss_and_gradients,
    make_retrieval_task,
)

NUM_PAIRS = 12  # of all processes together
TOLERANCE = 1e-5  # in fp32, relative to the largest gradient of a parameter
SAME_VIDEO = (0, NUM_PAIRS // 2)  # two pairs of one video, on different processes

Part = Callable[[Engine, Tokenizer], tuple[Objective, Any]]
"""A task, and the rank's share of a batch."""


def own_pairs(engine: Engine, whole: Any) -> Any:
    """The rank's share of a batch of pairs."""
    share = NUM_PAIRS // engine.size
    own = slice(engine.rank * share, (engine.rank + 1) * share)
    parts = {
        name: value[own]
        for name, value in vars(whole).items()
        if isinstance(value, Tensor) or name == "video_ids"
    }
    return replace(whole, **parts)


def contrastive(engine: Engine, tokenizer: Tokenizer) -> tuple[Objective, Any]:
    """Retrieval with VTC alone."""
    rows = rows_of(NUM_PAIRS, captions_per_video=1)
    rows[SAME_VIDEO[1]] = rows[SAME_VIDEO[0]]
    task = make_retrieval_task(
        make_model(), tokenizer, engine=engine, use_itm=False, mask_same_video=True
    )
    return task, own_pairs(engine, make_batch(tokenizer, rows))


def questions(engine: Engine, tokenizer: Tokenizer) -> tuple[Objective, Any]:
    """Of 4 questions about each of 4 videos of 2 clips, the processes have different numbers."""
    rows = questions_of([f"v{number}" for number in range(4)])
    rows.sort(key=lambda row: row.video_id)
    bounds = {1: [0, 16], 2: [0, 11, 16], 4: [0, 7, 8, 13, 16]}[engine.size]
    own = rows[bounds[engine.rank] : bounds[engine.rank + 1]]
    model = make_answer_model()
    task = QuestionAnsweringObjective(
        model,
        engine=engine,
        normalize=Normalize(MEAN, STD),
        evaluator=make_answer_evaluator(model, tokenizer, engine=engine, clip_aggregation="lse"),
    )
    return task.train(), make_question_batch(tokenizer, own, num_clips=2)


def entities(engine: Engine, tokenizer: Tokenizer) -> tuple[Objective, Any]:
    """Pretraining with VTC and PEM."""
    whole = make_pairs(tokenizer, [f"v{number}" for number in range(NUM_PAIRS)])
    task = make_pretraining_task(make_pretraining_model(), "itc", "mpm", engine=engine)
    return task, own_pairs(engine, whole)


def prompter(engine: Engine, tokenizer: Tokenizer) -> tuple[Objective, Any]:
    """The first stage of pretraining."""
    names = [f"v{number}" for number in range(NUM_PAIRS)]
    whole = make_pairs(tokenizer, names, mlm_probability=None, with_regions=False)
    return make_prompter_task(make_prompter(), engine=engine), own_pairs(engine, whole)


def pretraining(engine: Engine, tokenizer: Tokenizer) -> tuple[Objective, Any]:
    """All losses with dropout and negatives of the own process; words only on the first half."""
    whole = make_pairs(tokenizer, [f"v{number}" for number in range(NUM_PAIRS)])
    labels = given(whole.mlm_labels).clone()
    labels[NUM_PAIRS // 2 :] = IGNORED
    task = make_pretraining_task(make_pretraining_model(dropout=0.1), engine=engine)
    seed_everything(engine.rank)
    return task, own_pairs(engine, replace(whole, mlm_labels=labels))


DETERMINISTIC = (contrastive, questions, entities, prompter)


def learn(engine: Engine, part: Part, tokenizer: Tokenizer) -> LossAndGradients:
    task, batch = part(engine, tokenizer)
    return loss_and_gradients(task, batch, engine=engine)


def learn_alone(part: Part, tokenizer: Tokenizer) -> LossAndGradients:
    return learn(SingleProcess(CPU, scale_loss=False), part, tokenizer)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return make_tokenizer(tmp_path / "tokenizer")


@both_engines
@pytest.mark.parametrize("part", DETERMINISTIC)
def test_two_processes_with_half_a_batch_each_learn_what_one_does_with_all_of_it(
    backend: str, part: Part, tokenizer: Tokenizer
) -> None:
    """The loss and every gradient."""
    expected = learn_alone(part, tokenizer)
    first, second = on_processes(2, learn, part, tokenizer, backend=backend)
    assert_same(first, expected, tolerance=TOLERANCE)
    assert_same(second, first, tolerance=0.0)
    assert sum(bool(gradient.any()) for gradient in expected.gradients.values()) > 20


@both_engines
def test_all_ranks_have_the_gradients_of_all_losses_though_only_some_have_words(
    backend: str, tokenizer: Tokenizer
) -> None:
    first, second = on_processes(2, learn, pretraining, tokenizer, backend=backend)
    assert_same(second, first, tolerance=0.0)
    assert first.gradients["text_encoder.cls.predictions.bias"].any()


def learn_at_place(
    engine: Any, tokenizer: Tokenizer
) -> tuple[tuple[int, int], list[LossAndGradients]]:
    """The process's number on its node and in the job, and what it learns."""
    place = (engine._communicator.local_rank, engine.rank)  # noqa: SLF001
    return place, [learn(engine, part, tokenizer) for part in (*DETERMINISTIC, pretraining)]


@both_engines
def test_two_nodes_of_two_processes_learn_what_one_node_of_four_does(
    backend: str, tokenizer: Tokenizer
) -> None:
    """Bit for bit; and, but for rounding, what a single process does."""
    one = on_processes(4, learn_at_place, tokenizer, backend=backend)
    two = on_processes(4, learn_at_place, tokenizer, backend=backend, local_size=2)
    assert [place for place, _ in one] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert [place for place, _ in two] == [(0, 0), (1, 1), (0, 2), (1, 3)]
    for (_, expected), (_, found) in zip(one, two, strict=True):
        for left, right in zip(expected, found, strict=True):
            assert_same(right, left, tolerance=0.0)
    for part, together in zip(DETERMINISTIC, one[0][1], strict=False):
        assert_same(together, learn_alone(part, tokenizer), tolerance=TOLERANCE)
