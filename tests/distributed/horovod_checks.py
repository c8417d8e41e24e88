"""Runs under ``horovodrun -np 2``: each process writes what it found as JSON, a test judges it.

    horovodrun -np 2 python -m tests.distributed.horovod_checks DIR

All checks share the processes, since starting them takes longer than all of them together.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from src.build.pretraining import VideoLanguageRecipe
from src.configs.loading import load_config
from src.configs.schema import PretrainConfig
from src.datasets.masking import IGNORED
from src.datasets.retrieval import RetrievalBatch
from src.datasets.tokenization import Tokenizer
from src.datasets.transforms import Normalize
from src.distributed.engine import Engine, SingleProcess
from src.distributed.launch import launch_engine
from src.errors import run_script
from src.evaluation.report import write_answers, write_results
from src.pretrain import run_pretrain_sparse
from src.tasks import run_video_retrieval
from src.tasks.question_answering_task import QuestionAnsweringTask
from src.tasks.retrieval_task import RetrievalTask
from src.training.task import Task
from tests.factories import (
    CPU,
    MEAN,
    STD,
    MadeUpDecoder,
    make_batch,
    make_evaluator,
    make_model,
    make_retrieval_set,
    make_tokenizer,
    rows_of,
)
from tests.pretraining_factories import (
    given,
    make_pairs,
    make_pretraining_model,
    make_pretraining_task,
)
from tests.question_factories import (
    make_answer_evaluator,
    make_answer_model,
    make_question_batch,
    make_question_set,
    questions_of,
)

PAIRS_PER_PROCESS = 3
LEARNING_RATE = 0.5
SCRIPTS = {"retrieval": run_video_retrieval, "pretraining": run_pretrain_sparse}


def gather(engine: Engine) -> dict[str, Any]:
    """1 + rank rows of the rank's number, and a loss that weighs rows by place and rank."""
    rows = torch.full((1 + engine.rank, 2), float(engine.rank), requires_grad=True)
    gathered = engine.all_gather(rows)
    weights = torch.arange(1.0, 1 + len(gathered)) * 10**engine.rank
    (gathered * weights[:, None]).sum().backward()
    assert rows.grad is not None
    return {"gathered": gathered.tolist(), "gradient": rows.grad.tolist()}


def average(engine: Engine) -> dict[str, Any]:
    """Gradients of parameters used by both ranks, by rank 1 only, and by none; one SGD step."""
    modules = nn.ModuleDict({name: nn.Linear(1, 1, bias=False) for name in ("both", "one", "none")})
    for module in modules.values():
        nn.init.constant_(module.weight, float(engine.rank))  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(modules.parameters(), lr=LEARNING_RATE * (1 + engine.rank))
    engine.prepare(modules, optimizer)
    prepared = [float(p.detach()) for p in modules.parameters()]
    used = ("both", "one") if engine.rank == 1 else ("both",)
    inputs = torch.tensor([[1.0 + engine.rank]])
    for last in (False, True):  # two micro-steps: gradients add up, one reduction
        outputs = [modules[name](inputs) for name in used]
        engine.backward(torch.cat(outputs).sum(), last_micro_step=last)
    gradients = [None if p.grad is None else p.grad.item() for p in modules.parameters()]
    norm = engine.step(optimizer, max_grad_norm=-1.0)
    return {
        "prepared": prepared,
        "learning_rate": optimizer.param_groups[0]["lr"],
        "gradients": gradients,
        "norm": norm,
        "stepped": [float(p.detach()) for p in modules.parameters()],
    }


def contrastive(engine: Engine, tokenizer: Tokenizer) -> dict[str, Any]:
    """Loss and gradients of VTC over this rank's share of a batch."""
    rows = rows_of(2 * PAIRS_PER_PROCESS, captions_per_video=1)
    rows[3] = rows[0]  # the same video on both ranks, for `mask_same_video`
    whole = make_batch(tokenizer, rows)
    share = len(rows) // engine.size
    own = slice(engine.rank * share, (engine.rank + 1) * share)
    batch = RetrievalBatch(
        whole.frames[own], whole.text_ids[own], whole.text_mask[own], whole.video_ids[own], []
    )
    model = make_model()
    task = RetrievalTask(
        model,
        engine=engine,
        normalize=Normalize(MEAN, STD),
        evaluator=make_evaluator(model, tokenizer, engine=engine),
        use_itc=True,
        use_itm=False,
        itm_start_step=1,
        mask_same_video=True,
        validation_batch=4,
    )
    return loss_and_gradients(engine, task, batch)


def questions(engine: Engine, tokenizer: Tokenizer) -> dict[str, Any]:
    """Loss and gradients of questions, 4 about one video on rank 0, and 2 about another on 1."""
    rows = questions_of(["v0"]) + questions_of(["v1"])[2:]
    own = [row for row in rows if engine.size == 1 or row.video_id == f"v{engine.rank}"]
    model = make_answer_model()
    task = QuestionAnsweringTask(
        model,
        engine=engine,
        normalize=Normalize(MEAN, STD),
        evaluator=make_answer_evaluator(model, tokenizer, engine=engine),
    )
    return loss_and_gradients(engine, task, make_question_batch(tokenizer, own))


def pretraining(engine: Engine, tokenizer: Tokenizer, *losses: str) -> dict[str, Any]:
    """Loss and gradients of this rank's share of a batch; of the second half no word is asked."""
    share = 2 * PAIRS_PER_PROCESS // engine.size
    own = slice(engine.rank * share, (engine.rank + 1) * share)
    whole = make_pairs(tokenizer, [f"v{number}" for number in range(2 * PAIRS_PER_PROCESS)])
    labels = given(whole.mlm_labels).clone()
    labels[PAIRS_PER_PROCESS:] = IGNORED
    batch = replace(
        whole,
        frames=whole.frames[own],
        text_ids=whole.text_ids[own],
        text_mask=whole.text_mask[own],
        masked_ids=given(whole.masked_ids)[own],
        mlm_labels=labels[own],
        region=given(whole.region)[own],
        video_ids=whole.video_ids[own],
    )
    task = make_pretraining_task(make_pretraining_model(), *losses, engine=engine)
    torch.manual_seed(engine.rank)  # of the negatives
    return loss_and_gradients(engine, task, batch)


def mixed(engine: Engine, folder: Path) -> list[tuple[str, list[str]]]:
    """Kinds and names of this rank's first batches of videos and images."""
    arguments = json.loads((folder / "mixed.json").read_text())
    recipe = VideoLanguageRecipe(load_config(PretrainConfig, arguments), engine=engine)
    with mock.patch("src.build.data.make_decoder", return_value=MadeUpDecoder()):
        batches: Iterator[Any] = recipe.training_data().start(0)
        return [(batch.media, batch.video_ids) for batch in islice(batches, 12)]


def loss_and_gradients(engine: Engine, task: Task, batch: Any) -> dict[str, Any]:
    """Means over the ranks of what a task gives for a batch of each."""
    engine.prepare(task, torch.optim.SGD(task.model.parameters(), lr=0.0))
    loss = task(batch)["loss"]
    engine.backward(loss, last_micro_step=True)
    return {
        "loss": engine.sum({"loss": float(loss.detach())})["loss"] / engine.size,
        "gradients": {
            name: None if p.grad is None else p.grad.flatten().tolist()
            for name, p in task.model.named_parameters()
        },
    }


def evaluate(engine: Engine, tokenizer: Tokenizer, folder: Path) -> dict[str, Any]:
    """Files and validation values of 7 videos with 2 captions each, one of them unreadable."""
    model = make_model()
    evaluator = make_evaluator(
        model, tokenizer, engine=engine, allow_missing_videos=True, top_k=4, caption_chunk=4
    )
    rows = rows_of(7, captions_per_video=2)
    name = f"rank{engine.rank}of{engine.size}"
    data = make_retrieval_set(folder / "sets" / name, rows, broken=["v5"], engine=engine)
    outcome = evaluator.run(data)
    write_results(folder / "results" / name, outcome, protocol={})
    task = RetrievalTask(
        model,
        engine=engine,
        normalize=Normalize(MEAN, STD),
        evaluator=evaluator,
        use_itc=True,
        use_itm=True,
        itm_start_step=1,
        mask_same_video=False,
        validation_batch=4,
    )
    return task.evaluate(data)


def answer(engine: Engine, tokenizer: Tokenizer, folder: Path) -> None:
    """Files of the answers to 4 questions about each of 7 videos, one of them unreadable."""
    evaluator = make_answer_evaluator(
        make_answer_model(), tokenizer, engine=engine, allow_missing_videos=True
    )
    name = f"rank{engine.rank}of{engine.size}"
    rows = questions_of([f"v{number}" for number in range(7)])
    data = make_question_set(
        folder / "question sets" / name, rows, broken=["v5"], engine=engine, num_clips=2
    )
    write_answers(folder / "answers" / name, evaluator.run(data), protocol={})


def train(folder: Path) -> None:
    """Run entry scripts as the test has written down: flags, and after how many updates to stop.

    The job must outlive a script's end: Horovod cannot be started a second time.
    """
    from src.distributed.horovod import HorovodEngine

    for script, arguments, last_step in json.loads((folder / "runs.json").read_text()):
        with ExitStack() as patches:
            patches.enter_context(mock.patch.object(HorovodEngine, "close"))
            decoder = mock.patch("src.build.data.make_decoder", return_value=MadeUpDecoder())
            patches.enter_context(decoder)
            patches.enter_context(mock.patch("src.build.training.DEBUG_STEPS", last_step))
            patches.enter_context(mock.patch("sys.argv", [f"{script}.py", *arguments]))
            run_script(SCRIPTS[script].main)


def main() -> None:
    """Run all checks and write this process's findings."""
    folder = Path(sys.argv[1])
    with launch_engine("auto", device="cpu", precision="fp32", num_threads=1) as engine:
        tokenizer = make_tokenizer(folder / f"tokenizer{engine.rank}")
        alone = SingleProcess(CPU, scale_loss=False)
        found = {
            "place": [engine.rank, engine.size, type(engine).__name__],
            "sum": engine.sum({"a": 1.5 + engine.rank, "b": 10.0}),
            "objects": engine.gather_objects({"rank": engine.rank, "text": "x" * engine.rank}),
            "gather": gather(engine),
            "average": average(engine),
            "contrastive": contrastive(engine, tokenizer),
            "contrastive alone": contrastive(alone, tokenizer),
            "questions": questions(engine, tokenizer),
            "questions alone": questions(alone, tokenizer),
            "entities": pretraining(engine, tokenizer, "itc", "mpm"),
            "entities alone": pretraining(alone, tokenizer, "itc", "mpm"),
            "pretraining": pretraining(engine, tokenizer),
            "mixed": mixed(engine, folder),
            "validation": evaluate(engine, tokenizer, folder),
            "validation alone": evaluate(alone, tokenizer, folder) if engine.rank == 0 else None,
        }
        answer(engine, tokenizer, folder)
        if engine.rank == 0:
            answer(alone, tokenizer, folder)
        (folder / f"found{engine.rank}.json").write_text(json.dumps(found))
        train(folder)


if __name__ == "__main__":
    main()
