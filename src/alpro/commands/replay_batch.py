"""Repeat an update that stopped a run: ``alpro replay-batch --file FILE``.

``FILE`` is from the folder ``nonfinite`` of the run: ``step_<N>_rank_<R>.pt``. Each of its
batches goes through the model as it was, with the same random numbers, forward and backward. Prints
the losses, the first module whose output is not finite, and the parameters whose gradient is not.
It is the update of one process: the batches of others are not there to be compared with, gradients
of accumulated batches are summed, and fp16's loss scale is left out.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alpro.commands.cli import exit_code_of, path_flag
from alpro.configs.loading import ResolvedConfig, load_config
from alpro.errors import InputError, listed
from alpro.tasks.registry import TASKS
from alpro.training.run_directory import RunDirectory, read_stored

if TYPE_CHECKING:
    from torch import Tensor, nn

    from alpro.experiment.experiment import Experiment

FILE_NAME = re.compile(r"step_(\d+)_rank_\d+\.pt")
NUM_NAMED = 10  # parameters


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="alpro replay-batch",
        description="Repeat an update whose loss or gradient was not finite.",
        epilog="Further flags --KEY VALUE change the run's config: --precision fp32, or a path "
        "that has moved. Relative paths start from the folder that the run was started in.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--file", type=path_flag, required=True, help="nonfinite/step_<N>_rank_<R>.pt"
    )
    flags, changes = parser.parse_known_args(arguments)
    return exit_code_of(lambda: replay(flags.file, changes=changes))


def replay(path: Path, *, changes: Sequence[str]) -> None:
    """Repeat the update of a file and print losses and non-finite values.

    Raises:
        InputError: the file does not exist, or is not in the folder of a run.
    """
    # Check the flags before anything heavy is imported.
    match = FILE_NAME.fullmatch(path.name)
    if match is None or not path.is_file():
        raise InputError(f"--file: {path} is not a file nonfinite/step_<N>_rank_<R>.pt of a run")
    resolved = _read_run(path.absolute().parent.parent, changes=changes)
    # Heavy imports, after mistakes in flags have been reported.
    from alpro.experiment.experiment import Experiment
    from alpro.runs.run import launch_run
    from alpro.training.state_dicts import read_weights

    stored = read_weights(path)
    weights = read_weights(path.with_name(f"step_{match[1]}_model.pt"))
    with launch_run(resolved) as engine:
        experiment = Experiment(resolved, engine=engine)
        print(_replayed(experiment, stored, weights))


def _read_run(root: Path, *, changes: Sequence[str]) -> ResolvedConfig[Any]:
    # The stored arguments are the config; further flags override them.
    args = RunDirectory(root, rank=0).args
    class_of = {config_class.SCRIPT: config_class for config_class in TASKS.values()}
    config_class = class_of.get(str(read_stored(args).get("script")))
    if config_class is None:
        raise InputError(
            f"--file: {root} is not a run's folder: {args} does not exist, or is of an old version"
        )
    own = ["--config", str(args), "--output_dir", str(root)]
    return load_config(config_class, [*own, "--engine", "single", "--hang_timeout", "0", *changes])


def _replayed(
    experiment: Experiment[Any], stored: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> str:
    """Report on each batch of the update: losses and non-finite values."""
    from alpro.distributed.engine import autocast, usable_precision
    from alpro.evaluation.evaluation_set import silent_progress
    from alpro.runs.build_training import build_plan
    from alpro.tasks.pretraining.batches import PretrainBatch
    from alpro.tasks.question_answering.batches import QaBatch
    from alpro.tasks.retrieval.objective import RetrievalBatch
    from alpro.training.train_state import set_random_state

    config, device = experiment.config, experiment.engine.device
    kinds = {one.__name__: one for one in (RetrievalBatch, QaBatch, PretrainBatch)}
    # Restore the state of the update: weights, schedule and random numbers.
    model = experiment.start_model(resumes=True)
    model.load_state_dict(weights)
    plan = replace(
        build_plan(config, num_samples=1, engine=experiment.engine),
        num_train_steps=stored["num_steps"],
    )
    task = experiment.task.build_objective(model, plan=plan, progress=silent_progress).train()
    task.on_update_start(stored["step"])
    set_random_state(stored["random"], device)
    precision = usable_precision(config.precision, device)
    # Repeat forward and backward of each accumulated batch.
    lines = [f"update {stored['step']} of {stored['num_steps']}, on {device} in {precision}"]
    for number, (kind, values) in enumerate(zip(stored["kinds"], stored["batches"], strict=True)):
        batch = kinds[kind](**values).to(device)
        named = listed(batch.video_ids, most=NUM_NAMED)
        lines.append(f"batch {number + 1} of {len(stored['batches'])}: {named}")
        with record_nonfinite_modules(model) as faults, autocast(precision, device):
            losses = task(batch)
        lines += [f"  {name} {float(value.detach()):g}" for name, value in losses.items()]
        lines.append(f"  first module with an output that is not finite: {(faults or ['none'])[0]}")
        losses["loss"].backward()
    # Gradients are summed over the batches, as in the update.
    parameters = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    faulty = [name for name, gradient in parameters if not gradient.isfinite().all()]
    lines.append(
        f"parameters with a gradient that is not finite: {len(faulty)} of {len(parameters)}"
        + (f", {listed(faulty, most=NUM_NAMED)}" if faulty else "")
    )
    return "\n".join(lines)


@contextmanager
def record_nonfinite_modules(model: nn.Module) -> Iterator[list[str]]:
    """Context that records the names of modules with non-finite outputs, in order."""
    import torch

    faulty: list[str] = []

    def record(name: str, output: Any) -> None:
        parts = output if isinstance(output, tuple) else (output,)
        tensors = [part for part in parts if isinstance(part, torch.Tensor)]
        if any(part.is_floating_point() and not part.isfinite().all() for part in tensors):
            faulty.append(name)

    hooks = [
        module.register_forward_hook(
            lambda _module, _inputs, output, name=name: record(name, output)
        )
        for name, module in model.named_modules()
    ]
    try:
        yield faulty
    finally:
        for hook in hooks:
            hook.remove()
