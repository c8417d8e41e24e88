"""How a training run begins: afresh, or where an earlier process has left it."""

from dataclasses import dataclass
from pathlib import Path

from alpro.configs.schema import ExperimentConfig
from alpro.distributed.engine import Engine
from alpro.distributed.launch import launcher_on_this_machine
from alpro.training.run_directory import RunDirectory, read_stored


@dataclass(frozen=True, slots=True)
class RunStart:
    """What the ranks have agreed on."""

    overwrites: bool
    """What is in the output folder is forgotten."""
    resumes: bool
    """The run goes on from a restore file, which rank 0 reads."""
    launchers: tuple[str, ...]
    """Names of the launchers that have started the run's processes, this time or before."""


def agree_on_beginning(config: ExperimentConfig, *, engine: Engine) -> RunStart:
    """Find out how a run begins, as rank 0 sees the output folder; every rank must call this.

    ``overwrite`` is meant for the first time that a launcher starts the processes. One that starts
    them again, after a failure or without a machine that was lost, means to go on. Its own count of
    restarts does not tell: it differs between machines, and leaves the lost ones out.
    """
    output = RunDirectory(Path(config.output_dir), rank=engine.rank)
    stored = read_stored(output.launchers).get("launchers")
    here = launcher_on_this_machine(), stored if isinstance(stored, list) else []
    gathered = engine.gather_objects(here)
    launchers = {name for name, _ in gathered if name is not None}
    before = set(gathered[0][1])
    overwrites = config.overwrite and not launchers & before
    continues = not overwrites and not config.dry_run and bool(output.restore_files())
    return RunStart(
        overwrites=overwrites,
        resumes=engine.gather_objects(continues)[0],
        launchers=tuple(sorted(launchers if overwrites else launchers | before)),
    )
