"""The training loop of the project."""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain

import torch
from torch.optim import Optimizer

from alpro.distributed.engine import Engine
from alpro.errors import (
    FAILURE_EXIT_CODE,
    InputError,
    PeerLostError,
    RunError,
    ScarcityError,
    TerminatedError,
    known_error,
)
from alpro.optimization.optimizer import set_learning_rate
from alpro.training.checkpoints import CheckpointWriter
from alpro.training.nonfinite import NonfiniteGuard, UpdateRecord
from alpro.training.plan import TrainingData, TrainingPlan
from alpro.training.precision import autocast
from alpro.training.reporting import Reporter, Throughput
from alpro.training.resume import Restorer
from alpro.training.run_directory import RunDirectory
from alpro.training.seeding import random_state
from alpro.training.signals import TerminationNotice, noticing_termination
from alpro.training.task import Batch, Task
from alpro.training.train_state import TrainState
from alpro.training.unreadable import UnreadableVideoLog

logger = logging.getLogger(__name__)

HOW_TO_CONTINUE = "the same command (without --overwrite 1) continues from the last restore file"


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
        output: RunDirectory,
        checkpoints: CheckpointWriter,
        ledger: UnreadableVideoLog,
        guard: NonfiniteGuard,
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
            guard: deals with losses and gradients that are not finite.
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
        self._guard = guard
        self._reporter = reporter
        self._restorer = Restorer(
            task,
            engine=engine,
            optimizer=optimizer,
            output=output,
            ledger=ledger,
            reporter=reporter,
        )
        self._at = TrainState(num_steps=plan.num_train_steps)
        self._termination = TerminationNotice()
        exchanged = (lambda: engine.communication) if engine.size > 1 else None
        self._throughput = Throughput(exchanged)

    def fit(self) -> None:
        """Train to the end, from the restore file if there is one.

        Raises:
            TerminatedError: after one of `STOP_SIGNALS`, on all ranks after the same update.
            KeyboardInterrupt: saying how to go on.
            ScarcityError: as well.
        """
        try:
            with noticing_termination(self._engine.shorten_timeouts) as self._termination:
                self._fit()
        except PeerLostError:
            if self._termination.has_come:  # another rank has failed, and the launcher ends all
                sys.exit(FAILURE_EXIT_CODE)
            raise
        except KeyboardInterrupt:
            if not self._output.restore_files():
                raise
            raise KeyboardInterrupt(HOW_TO_CONTINUE) from None
        except Exception as error:
            known = known_error(error)
            if not isinstance(known, ScarcityError) or not self._output.restore_files():
                raise
            raise ScarcityError(f"{known}\nThen {HOW_TO_CONTINUE}.") from error

    def _fit(self) -> None:
        resumed = self._restorer.resume(num_steps=self._plan.num_train_steps)
        self._at = resumed or self._at
        if resumed is None:
            value = self._validated()
            logger.info("update 0: %s %.4g, before training", self._plan.best_metric, value)
        elif not resumed.is_complete:
            self._after_update(validates=True)
        elif self._at.step >= self._plan.last_step:
            done = f"{self._at.step} of {self._plan.last_step} updates"
            best = self._output.checkpoint("best")
            logger.info("already finished (%s); the best checkpoint is %s", done, best)
            return
        batches = self._data.start(self._at.read)
        self._task.train()
        self._throughput.restart()
        while self._at.step < self._plan.last_step:
            values, stops = self._update(batches)
            if self._reporter.line_is_due(self._at.step):
                values["unreadable_videos"] = self._ledger.num_on_all_ranks(self._engine)
            self._reporter.update(self._at.step, values, throughput=self._throughput)
            if stops:
                self._stop(is_complete=not self._validation_is_due)
            self._after_update(validates=self._validation_is_due)

    def try_one_batch(self) -> None:
        """Run one batch forward and backward and say what came out; nothing is written."""
        self._engine.prepare(self._task, self._optimizer)
        self._task.train()
        batch = self._next(self._data.start([]), number=0)
        attempt = self._attempt(1)
        found, _ = self._forward_backward(batch, last=True, attempt=attempt)
        losses = {name: float(value) for name, value in found.items()}
        shown = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
        logger.info("dry run: one batch went through, %s", shown)
        if not attempt.is_finite:
            raise RunError(f"the loss is not finite; {attempt.describe(self._engine.rank)}")
        self._task.check_dry_run(losses)

    def _update(self, batches: Iterator[Batch]) -> tuple[dict[str, float], bool]:
        """One update over ``accumulation_steps`` batches.

        Returns:
            What to report of it, and whether SIGTERM has come to any rank.
        """
        step = self._at.step + 1
        num_batches = self._plan.accumulation_steps
        rate = self._learning_rate(step)
        set_learning_rate(self._optimizer, rate)
        self._task.on_update_start(step)
        attempt = self._attempt(step)
        losses: list[dict[str, torch.Tensor]] = []
        votes: dict[str, float] = {}
        for micro_step in range(num_batches):
            batch = self._next(batches, number=self._at.step * num_batches + micro_step)
            last = micro_step == num_batches - 1
            found, votes = self._forward_backward(batch, last=last, attempt=attempt)
            losses.append(found)
        norm = self._step(attempt, losses_are_finite=votes["nonfinite"] == 0)
        self._at.advance(num_processes=self._engine.size, num_batches=num_batches)
        values = {name: _mean(losses, name) for name in dict.fromkeys(chain(*losses))}
        values |= {"lr": rate, "grad_norm": norm}
        if self._at.num_skipped:
            values["skipped_updates"] = self._at.num_skipped
        return values, votes["stop"] > 0

    def _attempt(self, step: int) -> UpdateRecord:
        return UpdateRecord(step, random_state(self._engine.device))

    def _step(self, attempt: UpdateRecord, *, losses_are_finite: bool) -> float:
        """Change the weights, unless something is not finite; returns the gradient norm."""
        if losses_are_finite:
            norm = self._engine.step(self._optimizer, max_grad_norm=self._plan.max_grad_norm)
        else:
            self._engine.skip(self._optimizer)
            norm = math.nan
        if losses_are_finite and (math.isfinite(norm) or self._engine.may_overflow):
            self._guard.passed()
        else:
            what = "gradient" if losses_are_finite else "loss"
            self._guard.handle_nonfinite(attempt, self._task, engine=self._engine, what=what)
            self._at.num_skipped += 1
        return norm

    def _next(self, batches: Iterator[Batch], *, number: int) -> Batch:
        """The next batch; waiting for it is measured, its bad videos are counted."""
        started = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - started
        self._engine.heartbeat()
        self._throughput.add(clips=len(batch.video_ids) * self._engine.size, waited=waited)
        self._ledger.record(batch.unreadable, epoch=number // self._data.batches_per_epoch)
        return batch

    def _forward_backward(
        self, batch: Batch, *, last: bool, attempt: UpdateRecord
    ) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        """Gradients of a batch; with the last of an update, what the ranks have agreed on."""
        with autocast(self._plan.precision, self._engine.device):
            losses = self._task(batch.to(self._engine.device))
        loss = losses["loss"]
        attempt.batches.append(batch)
        attempt.losses.append(float(loss.detach()))
        if self._plan.mean_accumulation:
            loss = loss / self._plan.accumulation_steps
        votes = self._engine.backward(
            loss,
            last_micro_step=last,
            votes=lambda: {
                "nonfinite": not attempt.is_finite,
                "stop": self._termination.has_come,
            },
        )
        return {name: value.detach() for name, value in losses.items()}, votes

    @property
    def _is_finished(self) -> bool:
        return self._at.step == self._plan.last_step

    @property
    def _validation_is_due(self) -> bool:
        return self._is_finished or self._at.step % self._plan.valid_steps == 0

    def _after_update(self, *, validates: bool) -> None:
        """Validate and save where due; saving last, so that a kill in between repeats both."""
        if validates:
            self._validate_and_checkpoint()
            self._at.is_complete = True
            if self._engine.sum({"stop": self._termination.has_come})["stop"]:
                self._stop(is_complete=True)
        if self._is_finished or self._at.step % self._plan.save_steps == 0:
            self._restorer.save(self._at)
            self._throughput.restart()

    def _stop(self, *, is_complete: bool) -> None:
        """Save before anything that takes long: a launcher waits for seconds only.

        Args:
            is_complete: whether the validation that is due is done.
        """
        self._at.is_complete = is_complete
        self._restorer.save(self._at)
        step, total = self._at.step, self._plan.last_step
        name = next(filter(None, self._engine.gather_objects(self._termination.name)))
        logger.info("%s came: saved after update %d of %d", name, step, total)
        if self._engine.rank == 0:
            raise TerminatedError(f"{name} came, update {step} is saved; {HOW_TO_CONTINUE}")
        raise TerminatedError

    def _validate_and_checkpoint(self) -> None:
        value = self._validated()
        best = self._at.update_best(value, name=self._plan.best_metric)
        remark = ", best so far" if best else ""
        logger.info("update %d: %s %.4g%s", self._at.step, self._plan.best_metric, value, remark)
        self._checkpoints.save(self._task.model, step=self._at.step, best=best)
        self._task.train()
        self._throughput.restart()

    def _validated(self) -> float:
        """Validate and report it; returns the metric that chooses the best checkpoint."""
        metrics = self._validate()
        self._reporter.validation(self._at.step, metrics)
        name = self._plan.best_metric
        if name not in metrics:
            raise InputError(
                f"best_metric: the validation set gives no {name}, only {', '.join(metrics)}. "
                "Choose one of these."
            )
        return metrics[name]


def _mean(losses: list[dict[str, torch.Tensor]], name: str) -> float:
    """Over the micro-steps that have it: a batch in which nothing is asked has no accuracy."""
    return float(torch.stack([one[name].float() for one in losses if name in one]).mean())
