"""The training loop of the project."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch.optim import Optimizer

from src.distributed.engine import Engine
from src.errors import InputError
from src.training.checkpoints import CheckpointWriter, load_restore, save_restore
from src.training.output import OutputFolder
from src.training.precision import autocast
from src.training.reporting import Reporter, Throughput
from src.training.seeding import random_state, set_random_state
from src.training.task import Batch, Task
from src.training.unreadable import UnreadableLedger

logger = logging.getLogger(__name__)

LOWER_IS_BETTER = ("loss", "medianR", "meanR")  # endings of metric names
HOW_TO_CONTINUE = "the same command (without --overwrite 1) continues from the last restore file"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """How long to train, and how often to do what; counted in updates unless said otherwise."""

    num_train_steps: int
    accumulation_steps: int
    """Micro-steps (batches) of one update."""
    mean_accumulation: bool
    """Average the losses of an update's micro-steps; the original sums them."""
    valid_steps: int
    save_steps: int
    """Updates between two restore files."""
    max_grad_norm: float
    """Largest global gradient norm, not positive for no clipping."""
    best_metric: str
    precision: str
    stop_after: int | None = None
    """Stop early after so many updates, on the schedule of the whole run (``debug``)."""

    @property
    def last_step(self) -> int:
        """Number of the run's last update."""
        return min(self.num_train_steps, self.stop_after or self.num_train_steps)


class TrainingData:
    """What the loop needs of a training set: batches from any position on."""

    def __init__(
        self,
        start: Callable[[int], Iterator[Batch]],
        *,
        num_samples: int,
        batches_per_epoch: int,
        samples_per_epoch: int,
        num_left_out: int = 0,
        description: Sequence[str] = (),
    ) -> None:
        """Wrap a way of starting.

        Args:
            start: endless batches of this rank, beginning at a batch number counted from 0.
            num_samples: videos read in one epoch, over all ranks.
            batches_per_epoch: batches of this rank in one epoch.
            samples_per_epoch: samples of this rank in one epoch.
            num_left_out: annotations that nothing can be learnt from.
            description: what the sets hold, in lines for the log.
        """
        self.start = start
        self.num_samples = num_samples
        self.batches_per_epoch = batches_per_epoch
        self.samples_per_epoch = samples_per_epoch
        self.num_left_out = num_left_out
        self.description = description


class Trainer:
    """Trains a task: updates, validation, checkpoints, and resuming where a killed run stopped."""

    def __init__(
        self,
        task: Task,
        *,
        engine: Engine,
        optimizer: Optimizer,
        learning_rate: Callable[[int], float],
        data: TrainingData,
        validate: Callable[[], dict[str, float]],
        plan: TrainingPlan,
        output: OutputFolder,
        checkpoints: CheckpointWriter,
        ledger: UnreadableLedger,
        reporter: Reporter,
    ) -> None:
        """Take the parts; nothing runs before :meth:`fit`.

        Args:
            task: on the engine's device.
            engine: the job.
            optimizer: over the task's trainable parameters.
            learning_rate: rate of an update, counted from 1.
            data: this rank's batches.
            validate: metrics on the validation set, the same on every rank.
            plan: lengths and intervals.
            output: the run's folder.
            checkpoints: writes the model.
            ledger: counts unreadable videos.
            reporter: shows and records numbers.
        """
        self._task = task
        self._engine = engine
        self._optimizer = optimizer
        self._learning_rate = learning_rate
        self._data = data
        self._validate = validate
        self._plan = plan
        self._output = output
        self._checkpoints = checkpoints
        self._ledger = ledger
        self._reporter = reporter
        self._step = 0
        self._best: float | None = None
        self._throughput = Throughput()

    def fit(self) -> None:
        """Train to the end, from the restore file if there is one.

        Raises:
            KeyboardInterrupt: saying how to go on.
        """
        try:
            self._fit()
        except KeyboardInterrupt:
            if not self._output.restore_files():
                raise
            raise KeyboardInterrupt(HOW_TO_CONTINUE) from None

    def _fit(self) -> None:
        self._engine.prepare(self._task, self._optimizer)
        resumed = self._resume()
        self._reporter.start(step=self._step)
        if not resumed:
            value = self._validated()
            logger.info("update 0: %s %.4g, before training", self._plan.best_metric, value)
        elif self._step >= self._plan.last_step:
            logger.info(
                "already finished (%d of %d updates); the best checkpoint is %s",
                self._step,
                self._plan.last_step,
                self._output.checkpoint("best"),
            )
            return
        batches = self._data.start(self._step * self._plan.accumulation_steps)
        self._task.train()
        self._throughput.restart()
        while self._step < self._plan.last_step:
            values = self._update(batches)
            if self._reporter.line_is_due(self._step):
                values["unreadable_videos"] = self._ledger.num_on_all_ranks(self._engine)
            self._reporter.update(self._step, values, throughput=self._throughput)
            self._after_update()

    def try_one_batch(self) -> None:
        """Run one batch forward and backward and say what came out; nothing is written."""
        self._engine.prepare(self._task, self._optimizer)
        self._task.train()
        found = self._forward_backward(self._next(self._data.start(0), number=0), last=True)
        losses = {name: float(value) for name, value in found.items()}
        shown = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
        logger.info("dry run: one batch went through, %s", shown)
        self._task.judge(losses)

    def _update(self, batches: Iterator[Batch]) -> dict[str, float]:
        """One update over ``accumulation_steps`` batches; returns what to report of it."""
        step = self._step + 1
        rate = self._learning_rate(step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._task.begin_update(step)
        losses: list[dict[str, torch.Tensor]] = []
        first_batch = self._step * self._plan.accumulation_steps
        for micro_step in range(self._plan.accumulation_steps):
            batch = self._next(batches, number=first_batch + micro_step)
            last = micro_step == self._plan.accumulation_steps - 1
            losses.append(self._forward_backward(batch, last=last))
        norm = self._engine.step(self._optimizer, max_grad_norm=self._plan.max_grad_norm)
        self._step = step
        values = {name: _mean(losses, name) for name in dict.fromkeys(chain(*losses))}
        return {**values, "lr": rate, "grad_norm": norm}

    def _next(self, batches: Iterator[Batch], *, number: int) -> Batch:
        """The next batch on the device; waiting for it is measured, its bad videos are counted."""
        started = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - started
        self._throughput.add(clips=len(batch.video_ids) * self._engine.size, waited=waited)
        self._ledger.record(batch.unreadable, epoch=number // self._data.batches_per_epoch)
        return batch.to(self._engine.device)

    def _forward_backward(self, batch: Batch, *, last: bool) -> dict[str, torch.Tensor]:
        with autocast(self._plan.precision, self._engine.device):
            losses = self._task(batch)
        loss = losses["loss"]
        if not math.isfinite(float(loss.detach())):
            raise RuntimeError(
                f"the loss of update {self._step + 1} on rank {self._engine.rank} is "
                f"{float(loss.detach())}; the batch is of {', '.join(batch.video_ids)}"
            )
        if self._plan.mean_accumulation:
            loss = loss / self._plan.accumulation_steps
        self._engine.backward(loss, last_micro_step=last)
        return {name: value.detach() for name, value in losses.items()}

    def _after_update(self) -> None:
        """Validate and save where due; saving last, so that a kill in between repeats both."""
        finished = self._step == self._plan.last_step
        if finished or self._step % self._plan.valid_steps == 0:
            self._validate_and_checkpoint()
        if finished or self._step % self._plan.save_steps == 0:
            self._save()
            self._throughput.restart()

    def _validate_and_checkpoint(self) -> None:
        value = self._validated()
        best = self._best is None or _is_better(value, self._best, name=self._plan.best_metric)
        if best:
            self._best = value
        remark = ", best so far" if best else ""
        logger.info("update %d: %s %.4g%s", self._step, self._plan.best_metric, value, remark)
        self._checkpoints.save(self._task.model, step=self._step, best=best)
        self._task.train()
        self._throughput.restart()

    def _validated(self) -> float:
        """Validate and report it; returns the metric that chooses the best checkpoint."""
        metrics = self._validate()
        self._reporter.validation(self._step, metrics)
        name = self._plan.best_metric
        if name not in metrics:
            raise InputError(
                f"best_metric: the validation set gives no {name}, only {', '.join(metrics)}. "
                "Choose one of these."
            )
        return metrics[name]

    def _save(self) -> None:
        self._ledger.write(self._engine)
        own = {"random": random_state(self._engine.device), "ledger": self._ledger.state_dict()}
        state = {
            "step": self._step,
            "best": self._best,
            "size": self._engine.size,
            "model": self._task.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "engine": self._engine.state_dict(),
            "ranks": self._engine.gather_objects(own),
        }
        save_restore(self._output, state)

    def _resume(self) -> bool:
        """Take up the restore file's state; returns whether there was one."""
        state = load_restore(self._output)
        if state is None:
            return False
        if state["size"] != self._engine.size:
            raise InputError(
                f"{self._output.restore} was written by {_processes(state['size'])}, this job has "
                f"{self._engine.size}. Continue with {_processes(state['size'])}, or start afresh "
                "with --overwrite 1."
            )
        self._restore(state)
        logger.info("continuing %s after update %d", self._output.root, self._step)
        return True

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._task.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._engine.load_state_dict(state["engine"])
        own = state["ranks"][self._engine.rank]
        set_random_state(own["random"], self._engine.device)
        self._ledger.load_state_dict(own["ledger"])
        self._step = state["step"]
        self._best = state["best"]


def _mean(losses: list[dict[str, torch.Tensor]], name: str) -> float:
    """Over the micro-steps that have it: a batch in which nothing is asked has no accuracy."""
    return float(torch.stack([one[name].float() for one in losses if name in one]).mean())


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def _is_better(value: float, than: float, *, name: str) -> bool:
    """Whether a metric has improved; any number is better than one that is not finite."""
    if not (math.isfinite(value) and math.isfinite(than)):
        return math.isfinite(value)
    return value < than if name.endswith(LOWER_IS_BETTER) else value > than
