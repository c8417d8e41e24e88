"""Saving a run's whole state, and taking it up again, by one process or many."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from alpro.distributed.engine import Engine
from alpro.training.checkpoints import load_restore, save_restore
from alpro.training.reporting import Reporter
from alpro.training.run_directory import RunDirectory
from alpro.training.seeding import random_state, set_random_state
from alpro.training.task import Task
from alpro.training.train_state import (
    TrainState,
    describe_world_size_change,
    form_difference,
    position_from,
    state_of_rank,
)
from alpro.training.unreadable import UnreadableVideoLog

logger = logging.getLogger(__name__)

_SENT_OTHERWISE = ("model", "optimizer")  # parts of the restore file that `Engine.prepare` sends


class Restorer:
    """Writes restore files, and continues from them; rank 0 alone touches them."""

    def __init__(
        self,
        task: Task,
        *,
        engine: Engine,
        optimizer: Optimizer,
        output: RunDirectory,
        ledger: UnreadableVideoLog,
        reporter: Reporter,
    ) -> None:
        """Take what has a state; see :class:`alpro.training.trainer.Trainer`."""
        self._task = task
        self._engine = engine
        self._optimizer = optimizer
        self._output = output
        self._ledger = ledger
        self._reporter = reporter

    def save(self, position: TrainState) -> None:
        """Write a restore file; every rank must call this."""
        self._ledger.write(self._engine)
        self._reporter.flush()
        own = {"random": random_state(self._engine.device), "ledger": self._ledger.state_dict()}
        state = {
            "position": position.state_dict(),
            "num_lines": self._reporter.num_lines,
            "model": self._task.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "engine": self._engine.state_dict(),
            "ranks": self._engine.gather_objects(own),
        }
        save_restore(self._output, state)
        self._engine.heartbeat()

    def resume(self, *, num_steps: int) -> TrainState | None:
        """Take up the newest restore file's state, and give every rank rank 0's.

        Every rank must call this, whether there is a restore file or not. Rank 0 reads it, so that
        all go on from the same, wherever they run.

        Args:
            num_steps: updates of the whole schedule.

        Returns:
            Where the run goes on; None where there is no restore file.
        """
        state = None
        if self._output.is_writer:
            state = load_restore(self._output, difference=self._difference)
        if state is not None:
            self._task.model.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
        self._engine.prepare(self._task, self._optimizer)
        shared_state = state and {
            key: part for key, part in state.items() if key not in _SENT_OTHERWISE
        }
        shared_state = self._engine.gather_objects(shared_state)[0]
        if shared_state is None:
            self._reporter.start(step=0)
            return None
        position = self._take(shared_state, num_steps=num_steps)
        self._reporter.start(
            step=position.step,
            num_lines=shared_state["num_lines"],
            last_step_before=shared_state["position"]["step"],
        )
        return position

    def _difference(self, state: Mapping[str, Any]) -> str | None:
        """First part of a restore file that this run could not have written; None if all fits."""
        own = {"random": {"cpu": torch.get_rng_state()}, "ledger": self._ledger.state_dict()}
        whole = {
            "position": TrainState(step=1, num_steps=1).state_dict(),
            "num_lines": 0,
            "model": self._task.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "engine": {},
            "ranks": [own],
        }
        if problem := form_difference(state, whole):
            return problem
        try:
            at = position_from(state["position"], num_steps=state["position"]["num_steps"])
        except (TypeError, ValueError, ZeroDivisionError):
            return "position is none"
        if at.step > at.num_steps:
            return f"position.step is {at.step} of {at.num_steps}"
        groups, stored = self._optimizer.param_groups, state["optimizer"]["param_groups"]
        if [len(g["params"]) for g in groups] != [len(g["params"]) for g in stored]:
            return "optimizer.param_groups are of other parameters"
        parameters = [parameter for group in groups for parameter in group["params"]]
        for number, moments in state["optimizer"]["state"].items():
            if number not in range(len(parameters)) or not isinstance(moments, dict):
                return f"optimizer.state.{number} is of no parameter"
            shapes = [tuple(x.shape) for x in moments.values() if isinstance(x, Tensor)]
            if not set(shapes) <= {(), tuple(parameters[number].shape)}:
                return f"optimizer.state.{number} is of another shape"
        return None if state["ranks"] else "ranks is empty"

    def _take(self, state: Mapping[str, Any], *, num_steps: int) -> TrainState:
        rank, size = self._engine.rank, self._engine.size
        position = position_from(state["position"], num_steps=num_steps)
        self._engine.load_state_dict(state["engine"])
        own = state_of_rank(state["ranks"], rank=rank, size=size)
        if own is not None:
            set_random_state(own["random"], self._engine.device)
            self._ledger.load_state_dict(own["ledger"])
        logger.info("continuing %s after update %d", self._output.root, position.step)
        before = len(state["ranks"])
        if before != size and rank == 0:
            stored = state["position"]
            logger.warning(describe_world_size_change(stored, position, before=before, now=size))
        return position
