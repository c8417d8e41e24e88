"""The output folder of a run: its files, and whose run it is.

Layout: ``log/`` (args.json, copies of the model's files as <key>.json, for questions
ans2label.json, for pretraining entities.txt, under torchrun launchers.json, log.txt, metrics.jsonl,
TensorBoard events, unreadable_videos.jsonl, quarantine.jsonl, run.lock),
``ckpt/model_step_<N|best|last>.pt``, ``restore.pt`` and its predecessor restore_backup.pt, damaged
ones as ``*.damaged``, ``nonfinite/`` (of an update that stopped the run step_<N>_rank_<R>.pt and
step_<N>_model.pt), ``results_*/``, and what tools show of a run: entities.html.
"""

import json
import logging
import os
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from alpro.errors import InputError
from alpro.training.atomic_io import temporary_of, write_atomically, write_json
from alpro.training.identity import (
    ARCHITECTURE_KEY,
    HASHES_KEY,
    changed_values,
    identity_of,
    is_weights,
    moved_paths,
)
from alpro.training.writable import RunLock
from alpro.user_files import JsonError, UnreadableFileError, read_json

logger = logging.getLogger(__name__)

# The restore file says best what is wrong with another number of processes.
SIZE_KEY = "n_gpu"
SCHEDULE_KEYS = frozenset({"num_train_steps", "valid_steps", "save_steps"})
# Runs of other scripts differ in other keys, too; runs of earlier versions have not stored it.
SCRIPT_KEY = "script"

LOCK = "log/run.lock"
QUARANTINE = "log/quarantine.jsonl"
RESULT_FILES = (
    *("results.json", "results_all.json", "scores.json"),
    *("raw_args.json", "merged_args.json"),
)
CHECKPOINTS = ("restore.pt", "restore_backup.pt", "ckpt/model_step_*.pt")
APPENDED = (  # patterns below the output folder
    *("log/log.txt", "log/metrics.jsonl", "log/unreadable_videos.jsonl", QUARANTINE, LOCK),
)
WRITTEN_IN_TRAINING = (
    *("log/args.json", "log/*_config.json", "log/*_cfg.json", "log/ans2label.json"),
    *("log/launchers.json", "log/entities.txt", "log/events.out.tfevents.*"),
    *CHECKPOINTS,
    *("ckpt/model_step_best.pt", "ckpt/model_step_last.pt"),
    *("nonfinite/step_*_rank_*.pt", "nonfinite/step_*_model.pt"),
    *("restore.damaged", "restore_backup.damaged"),
)
WRITTEN = (  # by runs, or tools about them
    *WRITTEN_IN_TRAINING,
    *APPENDED,
    *(f"results_*/step_*/{name}" for name in RESULT_FILES),
    "entities.html",  # by the tool show_entities, of the run's checkpoints
)


class RunDirectory:
    """The folder that one run writes to. Only rank 0 writes; all ranks know the paths."""

    def __init__(self, root: Path, *, rank: int) -> None:
        self.root = root
        self.is_writer = rank == 0
        self.log = root / "log"
        self.args = self.log / "args.json"
        self.answer_labels = self.log / "ans2label.json"
        self.entities = self.log / "entities.txt"
        self.copies = {
            "ans2label_path": self.answer_labels,
            "entity_file_path": self.entities,
        }
        """Config key -> copy of the file that it names."""
        self.launchers = self.log / "launchers.json"
        """Names of the launchers that have started the run's processes."""
        self.metrics = self.log / "metrics.jsonl"
        self.unreadable = self.log / "unreadable_videos.jsonl"
        self.quarantine = root / QUARANTINE
        """Videos that were cut off while they were read, and are not tried again."""
        self.nonfinite = root / "nonfinite"
        """Batches and model of an update that stopped the run, to replay it."""
        self.restore = root / "restore.pt"
        self.restore_backup = root / "restore_backup.pt"
        self._lock: RunLock | None = None
        """Keeps other jobs out, as long as this object is there."""

    def checkpoint(self, step: int | str) -> Path:
        """Path of the checkpoint of an update, or of ``best`` or ``last``."""
        return self.root / "ckpt" / f"model_step_{step}.pt"

    def claim(
        self, arguments: Mapping[str, Any], *, may_differ: Collection[str], overwrite: bool
    ) -> None:
        """Make the folder this run's: fresh, or continued if the same run has written here.

        No other job can claim the folder as long as this object is there.

        Args:
            arguments: the resolved config with derived values, for ``log/args.json``.
            may_differ: keys that say where and how a run executes, not what it computes.
            overwrite: delete what an earlier run has written.

        Raises:
            InputError: the output of another or an unknown run is here, or another process writes
                here.
        """
        # Refuse before anything is changed, and lock before anything is deleted.
        moved = {} if overwrite else self._check_ownership(arguments, may_differ=may_differ)
        if not self.is_writer:
            return
        clears = overwrite and self._is_of_a_run()
        self._lock = RunLock(self.root / LOCK, root=self.root)
        if clears:
            self._clear()

        # Remove files cut short, and unreadable videos of a run that has saved nothing.
        for file in self._written(str(temporary_of(Path(pattern))) for pattern in WRITTEN):
            if self._link_to(file) is None:
                file.unlink()
        if not self.restore_files():
            self.unreadable.unlink(missing_ok=True)

        # Store the config: all of it for a fresh run, of a continued one the paths that moved.
        if not self.restore_files():
            of_model = {key: self.log / f"{key}.json" for key in arguments[ARCHITECTURE_KEY]}
            for key, copy in {**of_model, **self.copies}.items():
                source = Path(arguments.get(key) or "")
                if source.is_file():  # what a run needs is there; it may name what it does not
                    write_atomically(copy, partial(shutil.copyfile, source))
            write_json(self.args, dict(arguments))
        elif moved:
            logger.info("other paths than before:\n%s", "\n".join(moved.values()))
            # What the run began with stays on record.
            keys = {HASHES_KEY, *(key.partition(".")[0] for key in moved)}
            new = {key: arguments[key] for key in keys if not is_weights(key)}
            write_json(self.args, {**_read_object(self.args), **new})

    def restore_files(self) -> list[Path]:
        """The restore files that are there, the newest first."""
        return [path for path in (self.restore, self.restore_backup) if path.exists()]

    def steps(self) -> list[str]:
        """Names of the checkpoints that are there: updates in order, then ``best`` and ``last``."""
        stems = [path.stem for path in self.root.glob("ckpt/model_step_*.pt")]
        names = [stem.removeprefix("model_step_") for stem in stems]
        return sorted(names, key=lambda name: (not name.isdigit(), len(name), name))

    def _written(self, patterns: Iterable[str]) -> list[Path]:
        return [file for pattern in patterns for file in sorted(self.root.glob(pattern))]

    def _check_ownership(
        self, arguments: Mapping[str, Any], *, may_differ: Collection[str]
    ) -> dict[str, str]:
        """Check that the output here is of this run; return the paths that moved, in words."""
        if os.path.lexists(self.args):
            return self._check_same_run(arguments, may_differ=may_differ)
        if checkpoints := self._written(CHECKPOINTS):
            raise InputError(
                f"output_dir: {self.root} holds checkpoints such as {checkpoints[0]}, but no "
                "log/args.json that says what run they are of.\n"
                "Use another output_dir, or --overwrite 1 to delete them and start over."
            )
        self._check_unmarked()
        return {}

    def _check_unmarked(self) -> None:
        """Refuse a folder with files of a run's names that no run can have left there."""
        if os.path.lexists(self.root / LOCK):  # of a run that has ended before it wrote the others
            return
        if files := self._written((*WRITTEN_IN_TRAINING, "log/metrics.jsonl")):
            raise InputError(
                f"output_dir: {files[0]} would be replaced, but {self.root} is not the folder of a "
                "run: it has neither log/args.json nor checkpoints. Use another output_dir."
            )

    def _check_same_run(
        self, arguments: Mapping[str, Any], *, may_differ: Collection[str]
    ) -> dict[str, str]:
        # Compare the configs, apart from keys that may differ and what follows from them.
        stored = _read_object(self.args)
        current = json.loads(json.dumps(dict(arguments)))
        ignored = {*may_differ, SIZE_KEY, SCRIPT_KEY}
        if stored.get(SIZE_KEY) != current[SIZE_KEY]:
            ignored |= SCHEDULE_KEYS
        if ARCHITECTURE_KEY not in stored:  # of an earlier version
            ignored |= {ARCHITECTURE_KEY, "visual_model"}
        before, now = identity_of(stored, without=ignored), identity_of(current, without=ignored)
        if changed := changed_values(before, now):
            raise InputError(self._other_run(changed))
        return moved_paths(before, now)

    def _other_run(self, changed: Sequence[str]) -> str:
        has_new_content = any(line.startswith(f"  {HASHES_KEY}.") for line in changed)
        put_back = (
            f"Files under {HASHES_KEY} have another content than when the run began: put the "
            "former ones back to continue it. Or start another run from its weights, with "
            f"--e2e_weights_path {self.checkpoint('last')} and another output_dir.\n"
        )
        return "\n".join(
            [
                f"output_dir: {self.root} holds the output of another run, whose config differs:",
                *changed,
                f"{put_back if has_new_content else ''}Use another output_dir, or --overwrite 1 to "
                "delete that run and start over.",
            ]
        )

    def _is_of_a_run(self) -> bool:
        """Return whether a run has written here; refuse other files of the same names."""
        marks = [self.args, self.root / LOCK, *self._written(CHECKPOINTS)]
        if any(map(os.path.lexists, marks)):
            return True
        self._check_unmarked()
        return False

    def _clear(self) -> None:
        # Refuse links before anything is deleted.
        files = self._written(pattern for pattern in WRITTEN if pattern != LOCK)
        for file in files:  # a lock is of a file, not of its name
            if link := self._link_to(file):
                raise InputError(
                    f"output_dir: {link} is a link, through which --overwrite 1 deletes nothing. "
                    f"Remove the link, or what is in {link.resolve()}, such as {file.name}."
                )
        for file in files:
            file.unlink(missing_ok=True)

    def _link_to(self, file: Path) -> Path | None:
        """Return the link on the way from the output folder to a file, if there is one."""
        inner = [folder for folder in file.parents if self.root in folder.parents]
        return next((folder for folder in inner if folder.is_symlink()), None)


def run_directory_of(checkpoint: Path) -> RunDirectory | None:
    """The run that a checkpoint is of, if it lies in a folder ``ckpt``."""
    folder = (checkpoint if checkpoint.parent.name else checkpoint.absolute()).parent
    return RunDirectory(folder.parent, rank=0) if folder.name == "ckpt" else None


def read_stored(path: Path) -> dict[str, Any]:
    """A JSON object that a run has left; empty if it is not there or damaged."""
    try:
        value = read_json(path)
    except (UnreadableFileError, JsonError):
        return {}
    return value if isinstance(value, dict) else {}


def changed_keys(
    before: Mapping[str, Any], now: Mapping[str, Any], *, without: Collection[str]
) -> list[str]:
    """Keys that both have, with other values, apart from some; in the order of ``now``."""
    return [
        key for key, value in now.items() if key not in without and before.get(key, value) != value
    ]


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except UnreadableFileError as error:
        if os.path.exists(path) and not os.access(path, os.R_OK):  # it may be undamaged
            raise
        problem = error.reason
    except JsonError as error:
        problem = error.reason
    else:
        if isinstance(value, dict):
            return value
        problem = f"it holds a {type(value).__name__}"
    raise InputError(
        f"{path}: missing or damaged ({problem}), so the run cannot be identified. Use "
        "another output_dir, or --overwrite 1 to delete that run and start over."
    )
