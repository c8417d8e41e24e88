"""Output folder of a run: its files, and the identity of the run.

Layout: ``log/`` (args.json, copies of the model's files as <key>.json, for questions
ans2label.json, for pretraining entities.txt, under torchrun launchers.json, log.txt, metrics.jsonl,
TensorBoard events, unreadable_videos.jsonl, quarantine.jsonl, run.lock),
``ckpt/model_step_<N|best|last>.pt``, ``restore.pt`` and its predecessor restore_backup.pt, damaged
ones as ``*.damaged``, ``nonfinite/`` (step_<N>_rank_<R>.pt and step_<N>_model.pt of an update that
stopped the run), ``results_*/``, and entities.html by the command show-entities.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from alpro.errors import InputError
from alpro.training.atomic_io import temporary_of, write_atomically, write_json
from alpro.training.identity import (
    ARCHITECTURE_KEY,
    HASHES_KEY,
    architecture_of,
    changed_values,
    identity_of,
    is_weights,
    moved_paths,
)
from alpro.training.writable import RunLock
from alpro.user_files import JsonError, UnreadableFileError, read_json

logger = logging.getLogger(__name__)

# Not compared: a resume handles another number of processes.
SIZE_KEY = "n_gpu"
SCHEDULE_KEYS = frozenset({"num_train_steps", "valid_steps", "save_steps"})
# Not compared: other scripts differ in other keys as well, and earlier versions lack it.
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
    """Output folder of one run. Only rank 0 writes; all ranks know the paths."""

    def __init__(
        self, root: Path, *, rank: int, upgrade: Callable[[Mapping[str, Any]], Any] = dict
    ) -> None:
        self.root = root
        self._upgrade = upgrade
        """From a stored config, maybe of an earlier version, to one with the present keys."""
        self.is_writer = rank == 0
        self.log = root / "log"
        self.args = self.log / "args.json"
        self.answer_labels = self.log / "ans2label.json"
        self.entities = self.log / "entities.txt"
        self.copies = {"ans2label_path": self.answer_labels, "entity_file_path": self.entities}
        """Config key -> copy of the file that it names."""
        self.launchers = self.log / "launchers.json"
        """Names of the launchers that started the run's processes."""
        self.metrics = self.log / "metrics.jsonl"
        self.unreadable = self.log / "unreadable_videos.jsonl"
        self.quarantine = root / QUARANTINE
        """Videos whose reading was cut off, which are not tried again."""
        self.nonfinite = root / "nonfinite"
        """Batches and model of an update that stopped the run, for a replay."""
        self.restore = root / "restore.pt"
        self.restore_backup = root / "restore_backup.pt"
        self._lock: RunLock | None = None
        """Keeps other jobs out, as long as this object exists."""

    def checkpoint(self, step: int | str) -> Path:
        """Path of the checkpoint of an update, or of ``best`` or ``last``."""
        return self.root / "ckpt" / f"model_step_{step}.pt"

    def claim(
        self, arguments: Mapping[str, Any], *, may_differ: Collection[str], overwrite: bool
    ) -> None:
        """Claim the folder, fresh or with the same run to resume, as long as this object exists.

        Args:
            arguments: the resolved config with derived values, for ``log/args.json``.
            may_differ: keys without effect on results.
            overwrite: delete the output of an earlier run.

        Raises:
            InputError: the folder holds another or an unknown run, or another process writes here.
        """
        # Check before anything is changed, and lock before anything is deleted.
        moved = {} if overwrite else self._check_ownership(arguments, may_differ=may_differ)
        if not self.is_writer:
            return
        clears = overwrite and self._is_of_a_run()
        self._lock = RunLock(self.root / LOCK, root=self.root)
        if clears:
            self._clear()

        # Remove incomplete files, and unreadable videos of a run that has saved nothing.
        for file in self._written(str(temporary_of(Path(pattern))) for pattern in WRITTEN):
            if self._link_to(file) is None:
                file.unlink()
        if not self.restore_files():
            self.unreadable.unlink(missing_ok=True)

        # Store the config: all of it for a fresh run, changed paths of a resumed one.
        if not self.restore_files():
            of_model = {key: self.log / f"{key}.json" for key in arguments[ARCHITECTURE_KEY]}
            for key, copy in {**of_model, **self.copies}.items():
                source = Path(arguments.get(key) or "")
                if source.is_file():  # needed files exist, others may be missing
                    write_atomically(copy, partial(shutil.copyfile, source))
            write_json(self.args, dict(arguments))
        elif moved:
            logger.info("other paths than before:\n%s", "\n".join(moved.values()))
            # Starting weights stay as they were: the run does not read them again.
            keys = {HASHES_KEY, *(key.partition(".")[0] for key in moved)}
            new = {key: arguments[key] for key in keys if not is_weights(key)}
            write_json(self.args, {**_read_object(self.args), **new})

    def restore_files(self) -> list[Path]:
        """Existing restore files, the newest first."""
        return [path for path in (self.restore, self.restore_backup) if path.exists()]

    def steps(self) -> list[str]:
        """Names of existing checkpoints: updates in order, then ``best`` and ``last``."""
        stems = [path.stem for path in self.root.glob("ckpt/model_step_*.pt")]
        names = [stem.removeprefix("model_step_") for stem in stems]
        return sorted(names, key=lambda name: (not name.isdigit(), len(name), name))

    def _written(self, patterns: Iterable[str]) -> list[Path]:
        return [file for pattern in patterns for file in sorted(self.root.glob(pattern))]

    def _check_ownership(
        self, arguments: Mapping[str, Any], *, may_differ: Collection[str]
    ) -> dict[str, str]:
        """Check that existing output is of this run; return descriptions of changed paths."""
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
        """Refuse a folder with files that a run would replace but that no run has written."""
        if os.path.lexists(self.root / LOCK):  # of a run that ended before it wrote others
            return
        if files := self._written((*WRITTEN_IN_TRAINING, "log/metrics.jsonl")):
            raise InputError(
                f"output_dir: {files[0]} would be replaced, but {self.root} is not the folder of a "
                "run: it has neither log/args.json nor checkpoints. Use another output_dir."
            )

    def _check_same_run(
        self, arguments: Mapping[str, Any], *, may_differ: Collection[str]
    ) -> dict[str, str]:
        # Compare the configs, apart from keys that may differ and values derived from them.
        stored = json.loads(json.dumps(self._upgrade(_read_object(self.args))))
        current = json.loads(json.dumps(dict(arguments)))
        ignored = {*may_differ, SIZE_KEY, SCRIPT_KEY}
        if stored.get(SIZE_KEY) != current[SIZE_KEY]:
            ignored |= SCHEDULE_KEYS
        # Earlier versions have stored not all model files.
        stored[ARCHITECTURE_KEY] = {**current[ARCHITECTURE_KEY], **architecture_of(stored)}
        before, now = identity_of(stored, without=ignored), identity_of(current, without=ignored)
        if changed := changed_values(before, now):
            differences = "\n".join(changed)
            put_back = (
                f"Files under {HASHES_KEY} have another content than when the run began: put the "
                "former ones back to continue it. Or start another run from its weights, with "
                f"--e2e_weights_path {self.checkpoint('last')} and another output_dir.\n"
            )
            has_new_content = any(line.startswith(f"  {HASHES_KEY}.") for line in changed)
            raise InputError(
                f"output_dir: {self.root} holds the output of another run, whose config differs:\n"
                f"{differences}\n{put_back if has_new_content else ''}Use another output_dir, or "
                "--overwrite 1 to delete that run and start over."
            )
        return moved_paths(before, now)

    def _is_of_a_run(self) -> bool:
        """Return whether a run has written here; refuse files of the same names."""
        marks = [self.args, self.root / LOCK, *self._written(CHECKPOINTS)]
        if any(map(os.path.lexists, marks)):
            return True
        self._check_unmarked()
        return False

    def _clear(self) -> None:
        # Refuse links before anything is deleted; the lock file stays, as it is locked.
        files = self._written(pattern for pattern in WRITTEN if pattern != LOCK)
        for file in files:
            if link := self._link_to(file):
                raise InputError(
                    f"output_dir: {link} is a link, through which --overwrite 1 deletes nothing. "
                    f"Remove the link, or what is in {link.resolve()}, such as {file.name}."
                )
        for file in files:
            file.unlink(missing_ok=True)

    def _link_to(self, file: Path) -> Path | None:
        """Return the first link between the output folder and a file, if any."""
        inner = [folder for folder in file.parents if self.root in folder.parents]
        return next((folder for folder in inner if folder.is_symlink()), None)


def run_directory_of(checkpoint: Path) -> RunDirectory | None:
    """Return the run of a checkpoint in a folder ``ckpt``."""
    folder = (checkpoint if checkpoint.parent.name else checkpoint.absolute()).parent
    return RunDirectory(folder.parent, rank=0) if folder.name == "ckpt" else None


def read_stored(path: Path) -> dict[str, Any]:
    """Read a JSON object of a run; empty if it is missing or damaged."""
    try:
        return _read_object(path)
    except InputError:
        return {}


def changed_keys(
    before: Mapping[str, Any], now: Mapping[str, Any], *, without: Collection[str]
) -> list[str]:
    """Return common keys with different values, apart from some; in the order of ``now``."""
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
