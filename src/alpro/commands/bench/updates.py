"""One job of the benchmark of updates: retrieval training on made-up batches, timed.

    [horovodrun -np N | torchrun --nproc_per_node N] python -m alpro.commands.bench.updates
        FILE UPDATES --config CONFIG [--KEY VALUE ...]

Rank 0 writes its measurements to FILE, as JSON. Shapes: B pairs of a process.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from alpro.configs.loading import load_config
from alpro.distributed.engine import autocast, usable_precision
from alpro.evaluation.evaluation_set import silent_progress
from alpro.experiment.experiment import Experiment
from alpro.program import run_script
from alpro.runs.build_training import build_plan, optimizer_of
from alpro.runs.run import launch_run
from alpro.tasks.retrieval.config import RetrievalConfig
from alpro.tasks.retrieval.objective import RetrievalBatch
from alpro.training.atomic_io import write_json
from alpro.training.train_state import seed_everything

WARM_UP = 3  # updates that are not counted


@dataclass(frozen=True, slots=True)
class UpdateTiming:
    """Time of the updates of one job."""

    seconds: list[float]
    """Of each update."""
    communication: float
    """Share of that time spent in exchanges, waiting for the other processes included."""
    num_parameters: int
    num_pairs: int
    """B."""


def read_measured(path: Path) -> UpdateTiming:
    """Read the file that a job has written."""
    return UpdateTiming(**json.loads(path.read_text(encoding="utf-8")))


def made_up_batch(experiment: Experiment[RetrievalConfig]) -> RetrievalBatch:
    """B pairs of noise in a config's shapes, other ones on each rank."""
    config = experiment.config
    num, side = config.train_batch_size, config.crop_img_size
    shape = (num, config.train_n_clips, config.num_frm, 3, side, side)
    seed_everything(config.seed, rank=experiment.engine.rank)
    ids = torch.randint(1, len(experiment.tokenizer), (num, config.max_txt_len))
    return RetrievalBatch(
        frames=torch.randint(0, 256, shape, dtype=torch.uint8),
        text_ids=ids,
        text_mask=torch.ones_like(ids),
        video_ids=[f"video {number} of rank {experiment.engine.rank}" for number in range(num)],
        unreadable=[],
    ).to(experiment.engine.device)


def measure(experiment: Experiment[RetrievalConfig], *, num_updates: int) -> UpdateTiming:
    """Train for some updates and measure each of them."""
    config, engine = experiment.config, experiment.engine
    seed_everything(config.seed)
    model = experiment.task.build_model().to(engine.device)
    # Task and optimizer as in training.
    plan = build_plan(config, num_samples=config.train_batch_size, engine=engine)
    task = experiment.task.build_objective(model, plan=plan, progress=silent_progress).train()
    optimizer = optimizer_of(experiment, model)
    engine.prepare(task, optimizer)
    batch = made_up_batch(experiment)
    precision = usable_precision(config.precision, engine.device)
    seconds, before = [], 0.0
    # Time whole updates: forward, backward with communication, and step.
    for number in range(WARM_UP + num_updates):
        if number == WARM_UP:
            before = engine.communication
        started = time.perf_counter()
        with autocast(precision, engine.device):
            loss = task(batch)["loss"]
        engine.backward(loss, last_micro_step=True)
        engine.step(optimizer, max_grad_norm=config.grad_norm)
        seconds.append(time.perf_counter() - started)
    counted = seconds[WARM_UP:]
    return UpdateTiming(
        seconds=counted,
        communication=(engine.communication - before) / sum(counted),
        num_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        num_pairs=config.train_batch_size,
    )


def main() -> None:
    """Measure and write the result."""
    path, num_updates, *arguments = sys.argv[1:]
    resolved = load_config(RetrievalConfig, [*arguments, "--output_dir", str(Path(path).parent)])
    with launch_run(resolved) as engine:
        timing = measure(Experiment(resolved, engine=engine), num_updates=int(num_updates))
        if engine.rank == 0:
            write_json(Path(path), asdict(timing))


if __name__ == "__main__":
    run_script(main)
