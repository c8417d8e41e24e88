"""The output folder of a run: its files, whose run it is, and atomic writing.

Layout: ``log/`` (args.json, model_config.json, log.txt, metrics.jsonl, TensorBoard events,
unreadable_videos.jsonl), ``ckpt/model_step_<N|best|last>.pt``, ``restore.pt`` and its predecessor,
``results_*/``.
"""

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from src.errors import InputError

# A continued run may have another number of processes, and then another number of updates.
DERIVED_FROM_SIZE = frozenset({"n_gpu", "num_train_steps", "valid_steps", "save_steps"})


def write_atomically(
    path: Path, write: Callable[[Path], object], *, backup: Path | None = None
) -> None:
    """Write a file so that it is there whole or not at all, even if the machine stops.

    Args:
        path: where the file shall be.
        write: writes the file under the temporary name it is given.
        backup: name that the file's former version keeps.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    write(temporary)
    with temporary.open("rb+") as handle:
        os.fsync(handle.fileno())
    if backup is not None and path.exists():
        path.replace(backup)
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented, atomically."""
    text = json.dumps(value, indent=4, ensure_ascii=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


class OutputFolder:
    """Where one run writes. Only rank 0 writes; all ranks know the paths."""

    def __init__(self, root: Path, *, rank: int) -> None:
        self.root = root
        self.is_writer = rank == 0
        self.log = root / "log"
        self.args = self.log / "args.json"
        self.model_config = self.log / "model_config.json"
        self.metrics = self.log / "metrics.jsonl"
        self.unreadable = self.log / "unreadable_videos.jsonl"
        self.restore = root / "restore.pt"
        self.restore_backup = root / "restore_backup.pt"

    def checkpoint(self, step: int | str) -> Path:
        """Path of the checkpoint of an update, or of ``best`` or ``last``."""
        return self.root / "ckpt" / f"model_step_{step}.pt"

    def holds_a_run(self) -> bool:
        """Whether a run has written here before."""
        return self.args.exists()

    def claim(
        self, arguments: Mapping[str, Any], *, may_differ: Collection[str], overwrite: bool
    ) -> None:
        """Make the folder this run's: fresh, or continued if the same run has written here.

        Args:
            arguments: the resolved config with derived values, for ``log/args.json``.
            may_differ: keys that say where and how a run executes, not what it computes.
            overwrite: forget what an earlier run has written.

        Raises:
            InputError: if another run's output is here.
        """
        if overwrite and self.is_writer:
            self._clear()
        if not overwrite and self.holds_a_run():
            self._check_same_run(arguments, may_differ=may_differ)
        elif self.is_writer:
            write_json(self.args, dict(arguments))
            shutil.copyfile(str(arguments["model_config"]), self.model_config)

    def _check_same_run(
        self, arguments: Mapping[str, Any], *, may_differ: Collection[str]
    ) -> None:
        stored = json.loads(self.args.read_text(encoding="utf-8"))
        current = json.loads(json.dumps(dict(arguments)))
        keys = (stored.keys() | current.keys()) - set(may_differ) - DERIVED_FROM_SIZE
        changed = sorted(key for key in keys if stored.get(key) != current.get(key))
        if changed:
            lines = "\n".join(
                f"  {key}: {stored.get(key)!r} there, {current.get(key)!r} now" for key in changed
            )
            raise InputError(
                f"output_dir: {self.root} holds the output of another run, whose config differs:\n"
                f"{lines}\n"
                "Use another output_dir, or --overwrite 1 to delete that run and start afresh."
            )

    def _clear(self) -> None:
        for folder in (self.log, self.root / "ckpt", *self.root.glob("results_*")):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.restore, self.restore_backup):
            file.unlink(missing_ok=True)
