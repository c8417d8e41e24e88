"""Training loop of all tasks."""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from itertools import chain

import torch
from torch.optim import Optimizer

from alpro.distributed.engine import Engine, autocast
from alpro.errors import (
    FAILURE_EXIT_CODE,
    InputError,
    PeerLostError,
    RunError,
    ScarcityError,
    TerminatedError,
    known_error,
)
from alpro.launchers import TerminationNotice, noticing_termination
from alpro.optimization.optimizer import set_learning_rate
from alpro.training.checkpoints import CheckpointWriter
from alpro.training.faults import NonfiniteGuard, UnreadableVideoLog, UpdateRecord
from alpro.training.objective import Batch, Objective, TrainingData, TrainingPlan
from alpro.training.reporting import Reporter, Throughput
from alpro.training.run_directory import RunDirectory
from alpro.training.train_state import Restorer, TrainState, random_state

logger = logging.getLogger(__name__)

HOW_TO_CONTINUE = "the same command (without --overwrite 1) continues from the last restore file"


@dataclass
class Trainer:
    """Trains an objective: updates, validation, checkpoints, and resuming a killed run."""

    objective: Objective
    """On the engine's device."""
    _: KW_ONLY
    engine: Engine
    optimizer: Optimizer
    learning_rate: Callable[[int], float]
    """Rate of an update, counted from 1."""
    data: TrainingData
    validate: Callable[[], dict[str, float]]
    """Metrics on the validation set, the same on every rank."""
    plan: TrainingPlan
    output: RunDirectory
    checkpoints: CheckpointWriter
    ledger: UnreadableVideoLog
    guard: NonfiniteGuard
    reporter: Reporter

    def __post_init__(self) -> None:
        self._restorer = Restorer(
            objective=self.objective,
            engine=self.engine,
            optimizer=self.optimizer,
            output=self.output,
            ledger=self.ledger,
            reporter=self.reporter,
        )
        self._at = TrainState(num_steps=self.plan.num_train_steps)
        self._termination = TerminationNotice()
        exchanged = (lambda: self.engine.communication) if self.engine.size > 1 else None
        self._throughput = Throughput(exchanged)

    def fit(self) -> None:
        """Train to the end, from the restore file if there is one.

        Raises:
            TerminatedError: after one of `STOP_SIGNALS`, on all ranks after the same update.
            KeyboardInterrupt, ScarcityError: with advice on how to continue.
        """
        try:
            with noticing_termination(self.engine.shorten_timeouts) as self._termination:
                self._fit()
        # Mention the restore file where the run can continue from it.
        except PeerLostError:
            if self._termination.has_come:  # another rank has failed, and the launcher ends all
                sys.exit(FAILURE_EXIT_CODE)
            raise
        except KeyboardInterrupt:
            if not self.output.restore_files():
                raise
            raise KeyboardInterrupt(HOW_TO_CONTINUE) from None
        except Exception as error:
            known = known_error(error)
            if not isinstance(known, ScarcityError) or not self.output.restore_files():
                raise
            raise ScarcityError(f"{known}\nThen {HOW_TO_CONTINUE}.") from error

    def _fit(self) -> None:
        # Resume from the restore file, or validate the weights that the run starts from.
        resumed = self._restorer.resume(num_steps=self.plan.num_train_steps)
        self._at = resumed or self._at
        if resumed is None:
            value = self._validated()
            logger.info("update 0: %s %.4g, before training", self.plan.best_metric, value)
        elif not resumed.is_complete:
            self._after_update(validates=True)
        elif self._at.step >= self.plan.last_step:
            done = f"{self._at.step} of {self.plan.last_step} updates"
            best = self.output.checkpoint("best")
            logger.info("already finished (%s); the best checkpoint is %s", done, best)
            return

        # Continue after the batches that have been read.
        batches = self.data.start(self._at.read)
        self.objective.train()
        self._throughput.restart()
        while self._at.step < self.plan.last_step:
            values, stops = self._update(batches)
            if self.reporter.line_is_due(self._at.step):
                values |= self.engine.sum({"unreadable_videos": self.ledger.total})
            self.reporter.update(self._at.step, values, throughput=self._throughput)
            # Save at once on a signal: a validation would outlast the launcher's patience.
            if stops:
                self._stop(is_complete=not self._validation_is_due)
            self._after_update(validates=self._validation_is_due)

    def try_one_batch(self) -> None:
        """Run one batch forward and backward, and log the losses without writing anything."""
        self.engine.prepare(self.objective, self.optimizer)
        self.objective.train()
        batch = self._next(self.data.start([]), number=0)
        record = UpdateRecord(1, random_state(self.engine.device))
        outputs, _ = self._forward_backward(batch, last=True, record=record)
        losses = {name: float(value) for name, value in outputs.items()}
        shown = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
        logger.info("dry run: one batch went through, %s", shown)
        if not record.is_finite:
            raise RunError(f"the loss is not finite; {record.describe(self.engine.rank)}")
        self.objective.check_dry_run(losses)

    def _update(self, batches: Iterator[Batch]) -> tuple[dict[str, float], bool]:
        """Run one update; return its values to report, and whether any rank got a stop signal."""
        # Set the learning rate, and record the random state for a replay.
        step = self._at.step + 1
        num_batches = self.plan.accumulation_steps
        rate = self.learning_rate(step)
        set_learning_rate(self.optimizer, rate)
        self.objective.on_update_start(step)
        record = UpdateRecord(step, random_state(self.engine.device))

        # Accumulate gradients over the micro-steps; the last one averages them over the ranks.
        losses: list[dict[str, torch.Tensor]] = []
        votes: dict[str, float] = {}
        for micro_step in range(num_batches):
            batch = self._next(batches, number=self._at.step * num_batches + micro_step)
            last = micro_step == num_batches - 1
            outputs, votes = self._forward_backward(batch, last=last, record=record)
            losses.append(outputs)

        # Update the weights, unless the loss on any rank or the gradient is not finite.
        norm = self._step(record, losses_are_finite=votes["nonfinite"] == 0)
        self._at.advance(num_processes=self.engine.size, num_batches=num_batches)

        # Average the losses; micro-steps without masked words have no MLM accuracy.
        parts = {name: [one[name] for one in losses if name in one] for name in chain(*losses)}
        values = {k: float(torch.stack([x.float() for x in v]).mean()) for k, v in parts.items()}
        values |= {"lr": rate, "grad_norm": norm}
        if self._at.num_skipped:
            values["skipped_updates"] = self._at.num_skipped
        return values, votes["stop"] > 0

    def _step(self, record: UpdateRecord, *, losses_are_finite: bool) -> float:
        """Update the weights or skip the update; return the gradient norm."""
        if losses_are_finite:
            norm = self.engine.step(self.optimizer, max_grad_norm=self.plan.max_grad_norm)
        else:
            self.engine.skip(self.optimizer)
            norm = math.nan
        if losses_are_finite and (math.isfinite(norm) or self.engine.may_overflow):
            self.guard.passed()
        else:
            what = "gradient" if losses_are_finite else "loss"
            self.guard.handle_nonfinite(record, self.objective, engine=self.engine, what=what)
            self._at.num_skipped += 1
        return norm

    def _next(self, batches: Iterator[Batch], *, number: int) -> Batch:
        """Return the next batch; measure the wait, and record unreadable videos."""
        started = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - started  # seconds
        self.engine.heartbeat()
        self._throughput.add(clips=len(batch.video_ids) * self.engine.size, waited=waited)
        self.ledger.record(batch.unreadable, epoch=number // self.data.sampler.batches_per_epoch)
        return batch

    def _forward_backward(
        self, batch: Batch, *, last: bool, record: UpdateRecord
    ) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        """Return a batch's losses and, after the last micro-step, the votes of all ranks."""
        # Forward in the run's precision; micro-steps are summed or averaged.
        with autocast(self.plan.precision, self.engine.device):
            losses = self.objective(batch.to(self.engine.device))
        loss = losses["loss"]
        record.batches.append(batch)
        record.losses.append(float(loss.detach()))
        if self.plan.mean_accumulation:
            loss = loss / self.plan.accumulation_steps
        # Backward; the last micro-step also sums faults and signals over the ranks.
        votes = self.engine.backward(
            loss,
            last_micro_step=last,
            votes=lambda: {
                "nonfinite": not record.is_finite,
                "stop": self._termination.has_come,
            },
        )
        return {name: value.detach() for name, value in losses.items()}, votes

    @property
    def _is_finished(self) -> bool:
        return self._at.step == self.plan.last_step

    @property
    def _checkpoint_is_due(self) -> bool:
        return self._is_finished or self._at.step % self.plan.valid_steps == 0

    @property
    def _validation_is_due(self) -> bool:
        interval = self.plan.only_valid_steps
        return self._checkpoint_is_due or (interval > 0 and self._at.step % interval == 0)

    def _after_update(self, *, validates: bool) -> None:
        """Validate and save when due; saving comes last, so that a kill in between repeats both."""
        if validates:
            value = self._validated()
            best = self._at.update_best(value, name=self.plan.best_metric)
            shown = f"{self.plan.best_metric} {value:.4g}{', best so far' if best else ''}"
            logger.info("update %d: %s", self._at.step, shown)
            # A pending one is at no interval after updates are renumbered: keep its checkpoint.
            numbered = self._checkpoint_is_due or not self._validation_is_due
            model = self.objective.model
            self.checkpoints.save(model, step=self._at.step, best=best, numbered=numbered)
            self.objective.train()
            self._throughput.restart()
            self._at.is_complete = True
            # A signal during the validation stops all ranks.
            if self.engine.sum({"stop": self._termination.has_come})["stop"]:
                self._stop(is_complete=True)
        if self._is_finished or self._at.step % self.plan.save_steps == 0:
            self._restorer.save(self._at)
            self._throughput.restart()

    def _stop(self, *, is_complete: bool) -> None:
        """Save and end the run; a validation that is due is left to the next start."""
        self._at.is_complete = is_complete
        self._restorer.save(self._at)
        step, total = self._at.step, self.plan.last_step
        name = next(filter(None, self.engine.gather_objects(self._termination.name)))
        logger.info("%s came: saved after update %d of %d", name, step, total)
        if self.engine.rank == 0:
            raise TerminatedError(f"{name} came, update {step} is saved; {HOW_TO_CONTINUE}")
        raise TerminatedError

    def _validated(self) -> float:
        """Validate, report, and return the metric that chooses the best checkpoint."""
        metrics = self.validate()
        self.reporter.validation(self._at.step, metrics)
        name = self.plan.best_metric
        if name not in metrics:
            raise InputError(
                f"best_metric: the validation set gives no {name}, only {', '.join(metrics)}. "
                "Choose one of these."
            )
        return metrics[name]
