"""The output folder of a run: its files, and whose run it is.

Layout: ``log/`` (args.json, model_config.json, for questions ans2label.json, for pretraining
entities.txt, under torchrun launchers.json, log.txt, metrics.jsonl, TensorBoard events,
unreadable_videos.jsonl, quarantine.jsonl, run.lock), ``ckpt/model_step_<N|best|last>.pt``,
``restore.pt`` and its predecessor restore_backup.pt, damaged ones as ``*.damaged``, ``nonfinite/``
(of an update that stopped the run step_<N>_rank_<R>.pt and step_<N>_model.pt), ``results_*/``, and
what tools show of a run: entities.html.
"""

import json
import os
import shutil
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from src.errors import InputError
from src.training.locking import RunLock
from src.training.writing import temporary_of, write_atomically, write_json

# The restore file says best what is wrong with another number of processes.
SIZE_KEY = "n_gpu"
SCHEDULE_KEYS = frozenset({"num_train_steps", "valid_steps", "save_steps"})
# Runs of other scripts differ in other keys, too; runs of earlier versions have not stored it.
SCRIPT_KEY = "script"

LOCK = "log/run.lock"
RESULT_FILES = (
    *("results.json", "results_all.json", "scores.json"),
    *("raw_args.json", "merged_args.json"),
)
WRITTEN = (  # what runs write, or tools about them, as patterns below the output folder
    *("log/args.json", "log/model_config.json", "log/ans2label.json"),
    *("log/launchers.json", "log/entities.txt", "log/log.txt", "log/metrics.jsonl"),
    *("log/unreadable_videos.jsonl", "log/quarantine.jsonl"),
    *("log/events.out.tfevents.*", "ckpt/model_step_*.pt"),
    *("nonfinite/step_*_rank_*.pt", "nonfinite/step_*_model.pt"),
    *("restore.pt", "restore_backup.pt", "restore.damaged", "restore_backup.damaged"),
    *(f"results_*/step_*/{name}" for name in RESULT_FILES),
    LOCK,
    "entities.html",  # by the tool show_entities, of the run's checkpoints
)


def check_output_folder(root: Path) -> None:
    """Check, without making anything, that a folder is there or can be made, and be written to.

    Raises:
        InputError: if it cannot.
    """
    nearest = next(path for path in (root, *root.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise InputError(f"output_dir: {root}: {nearest} is not a folder. Name another output_dir.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(
            f"output_dir: {root}: the folder {nearest} cannot be written to. Name another "
            "output_dir, or change its permissions."
        )


class OutputFolder:
    """Where one run writes. Only rank 0 writes; all ranks know the paths."""

    def __init__(self, root: Path, *, rank: int) -> None:
        self.root = root
        self.is_writer = rank == 0
        self.log = root / "log"
        self.args = self.log / "args.json"
        self.model_config = self.log / "model_config.json"
        self.answer_labels = self.log / "ans2label.json"
        self.entities = self.log / "entities.txt"
        self.copies = {
            "model_config": self.model_config,
            "ans2label_path": self.answer_labels,
            "entity_file_path": self.entities,
        }
        """Config key -> copy of the file that it names."""
        self.launchers = self.log / "launchers.json"
        """Names of the launchers that have started the run's processes."""
        self.metrics = self.log / "metrics.jsonl"
        self.unreadable = self.log / "unreadable_videos.jsonl"
        self.quarantine = self.log / "quarantine.jsonl"
        """Videos that were cut off while they were read, and are not tried again."""
        self.nonfinite = root / "nonfinite"
        """What an update that stopped the run can be repeated with."""
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

        What a killed run has left unfinished is removed. No other job can claim the folder as long
        as this object is there.

        Args:
            arguments: the resolved config with derived values, for ``log/args.json``.
            may_differ: keys that say where and how a run executes, not what it computes.
            overwrite: forget what an earlier run has written.

        Raises:
            InputError: if another run's output is here, or that of a run that cannot be told, or if
                another process writes here.
        """
        if not overwrite:
            self._check_ownership(arguments, may_differ=may_differ)
        if not self.is_writer:
            return
        self._lock = RunLock(self.root / LOCK, root=self.root)
        if overwrite:
            self._clear()
        self._tidy()
        if not self.restore_files():
            for key, copy in self.copies.items():
                source = Path(arguments.get(key) or "")
                if source.is_file():  # what a run needs is there; it may name what it does not
                    write_atomically(copy, partial(shutil.copyfile, source))
            write_json(self.args, dict(arguments))

    def restore_files(self) -> list[Path]:
        """The restore files that are there, the newest first."""
        return [path for path in (self.restore, self.restore_backup) if path.exists()]

    def steps(self) -> list[str]:
        """Names of the checkpoints that are there: updates in order, then ``best`` and ``last``."""
        stems = [path.stem for path in self.root.glob("ckpt/model_step_*.pt")]
        names = [stem.removeprefix("model_step_") for stem in stems]
        return sorted(names, key=lambda name: (not name.isdigit(), len(name), name))

    def _checkpoints(self) -> list[Path]:
        return [*self.restore_files(), *sorted(self.root.glob("ckpt/model_step_*.pt"))]

    def _check_ownership(
        self, arguments: Mapping[str, Any], *, may_differ: Collection[str]
    ) -> None:
        if self.args.exists():
            self._check_same_run(arguments, may_differ=may_differ)
        elif checkpoints := self._checkpoints():
            raise InputError(
                f"output_dir: {self.root} holds checkpoints such as {checkpoints[0]}, but no "
                "log/args.json that tells what run they are of.\n"
                "Use another output_dir, or --overwrite 1 to delete them and start afresh."
            )

    def _check_same_run(
        self, arguments: Mapping[str, Any], *, may_differ: Collection[str]
    ) -> None:
        stored = _read_object(self.args)
        current = json.loads(json.dumps(dict(arguments)))
        ignored = {*may_differ, SIZE_KEY, SCRIPT_KEY}
        if stored.get(SIZE_KEY) != current[SIZE_KEY]:
            ignored |= SCHEDULE_KEYS
        before = _leaves(stored, without=ignored, text_encoder=_read_object(self.model_config))
        text_encoder = _read_object(Path(str(arguments["model_config"])))
        now = _leaves(current, without=ignored, text_encoder=text_encoder)
        keys = sorted(before.keys() | now.keys())
        changed = [key for key in keys if before.get(key) != now.get(key)]
        if changed:
            lines = "\n".join(
                f"  {key}: {_shown(before, key)} there, {_shown(now, key)} now" for key in changed
            )
            raise InputError(
                f"output_dir: {self.root} holds the output of another run, whose config differs:\n"
                f"{lines}\n"
                "Use another output_dir, or --overwrite 1 to delete that run and start afresh."
            )

    def _tidy(self) -> None:
        """Remove what no run goes on from: files cut short, the list of one that starts anew."""
        for pattern in WRITTEN:
            for file in self.root.glob(str(temporary_of(Path(pattern)))):
                file.unlink()
        if not self.restore_files():
            self.unreadable.unlink(missing_ok=True)

    def _clear(self) -> None:
        for pattern in WRITTEN:
            if pattern != LOCK:  # a lock is of a file, not of its name
                for file in self.root.glob(pattern):
                    file.unlink()


def run_of(checkpoint: Path) -> OutputFolder | None:
    """The run that a checkpoint is of, if it lies in a folder ``ckpt``."""
    folder = (checkpoint if checkpoint.parent.name else checkpoint.absolute()).parent
    return OutputFolder(folder.parent, rank=0) if folder.name == "ckpt" else None


def read_stored(path: Path) -> dict[str, Any]:
    """A JSON object that a run has left; empty if it is not there or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # ValueError: neither JSON nor text
        return {}
    return value if isinstance(value, dict) else {}


def changed_keys(
    before: Mapping[str, Any], now: Mapping[str, Any], *, without: Collection[str]
) -> list[str]:
    """Keys that both have, with other values, apart from some; in the order of ``now``."""
    return [
        key
        for key, value in now.items()
        if key not in without and before.get(key, value) != value
    ]


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object that a run has written."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ValueError: neither JSON nor text
        problem = str(error)
    else:
        if isinstance(value, dict):
            return value
        problem = f"it holds a {type(value).__name__}"
    raise InputError(
        f"{path}: missing or damaged ({problem}), so the run cannot be told from another one. Use "
        "another output_dir, or --overwrite 1 to delete that run and start afresh."
    )


def _leaves(
    arguments: Mapping[str, Any], *, without: Collection[str], text_encoder: Mapping[str, Any]
) -> dict[str, Any]:
    """What makes a run that run, under dotted names: ``train_datasets.1.img``."""
    leaves = {f"model_config.{key}": value for key, value in text_encoder.items()}
    for key, value in arguments.items():
        if key not in without:
            leaves |= _parts(key, value)
    return leaves


def _parts(key: str, value: Any) -> dict[str, Any]:
    """A value under its name, or what it consists of under dotted ones."""
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {key: value}
    return {
        name: leaf
        for part, part_value in value.items()
        for name, leaf in _parts(f"{key}.{part}", part_value).items()
    }


def _shown(leaves: Mapping[str, Any], key: str) -> str:
    """A value as a config has it."""
    if key not in leaves:
        return "nothing"
    value = leaves[key]
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
