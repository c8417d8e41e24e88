"""Writers of the checkpoints that `RunDirectory` names, and of restore files."""

import io
import logging
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from alpro.errors import InputError
from alpro.training.atomic_io import link_atomically, write_atomically
from alpro.training.run_directory import RunDirectory
from alpro.training.state_dicts import UnreadableValueError, loaded
from alpro.training.stored_tensors import DAMAGED, BrokenFileError, read_archive
from alpro.training.weight_files import Format, format_of

logger = logging.getLogger(__name__)

# Errors of reading files that are damaged or of another kind.
_DAMAGED = (ValueError, OSError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)
_PROBE_BYTES = 1 << 20
RESTORE_FORMAT = 2  # increased with every incompatible change of the content


class CheckpointWriter:
    """Writes ``ckpt/model_step_*.pt``: plain state dicts of CPU tensors."""

    def __init__(self, output: RunDirectory, *, keep: int) -> None:
        """Write to a run directory; `keep` numbered checkpoints, 0 for all."""
        self._output = output
        self._keep = keep

    def save(self, model: nn.Module, *, step: int, best: bool, numbered: bool = True) -> None:
        """Write the checkpoint of an update: numbered, named last and, if it is, best as well.

        One that is not `numbered` is the best alone.
        """
        if not self._output.is_writer or not (numbered or best):
            return
        # The checkpoint first, then its further names, so that each is a whole file.
        path = self._output.checkpoint(step if numbered else "best")
        state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
        write_tensors(path, state)
        if not numbered:
            return
        for name in ("last", "best") if best else ("last",):
            link = self._output.checkpoint(name)
            try:
                link_atomically(path, link)
            except OSError:  # a file system without hard links
                size = path.stat().st_size
                write_atomically(link, partial(shutil.copyfile, path), num_bytes=size)
        if not self._keep:
            return

        # Remove old ones by age: update numbers change with the number of processes.
        numbers = {p: p.stem.rsplit("_", 1)[1] for p in path.parent.glob("model_step_*.pt")}
        ages = [(p.stat().st_mtime_ns, int(n), p) for p, n in numbers.items() if n.isdigit()]
        for *_, old in sorted(ages)[: -self._keep]:
            old.unlink()


def save_restore(output: RunDirectory, state: Mapping[str, Any]) -> None:
    """Write the restore file; the previous one becomes the backup."""
    if output.is_writer:
        content = {"format": RESTORE_FORMAT, **state}
        write_tensors(output.restore, content, backup=output.restore_backup)


def write_tensors(path: Path, content: Mapping[str, Any], *, backup: Path | None = None) -> None:
    """``torch.save``, atomically; see :func:`write_atomically`."""

    def write(temporary: Path) -> None:
        try:
            torch.save(content, temporary)
        except RuntimeError:
            # PyTorch hides the system's error; appending more raises it again.
            with temporary.open("ab") as file:
                file.write(bytes(_PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
            raise

    write_atomically(path, write, backup=backup, num_bytes=_tensor_bytes(content))


def _tensor_bytes(content: Any) -> int:
    if isinstance(content, Tensor):
        return content.nbytes
    if isinstance(content, Mapping):
        content = list(content.values())
    if isinstance(content, Sequence) and not isinstance(content, str | bytes):
        return sum(map(_tensor_bytes, content))
    return 0


def load_restore(
    output: RunDirectory, *, difference: Callable[[dict[str, Any]], str | None] = lambda _: None
) -> dict[str, Any] | None:
    """Read the newest undamaged restore file; None without one.

    Args:
        output: the run's folder.
        difference: describes the first part of a content that does not fit this run.

    Raises:
        InputError: all restore files are damaged, or one is of another kind, or cannot be read.
    """
    problems: dict[Path, str] = {}
    for path in output.restore_files():
        try:
            state = _read_whole(path)
        except InputError:  # a kind of ValueError
            raise
        except _DAMAGED as error:
            is_reason = isinstance(error, BrokenFileError | UnreadableValueError)
            problems[path] = str(error) if is_reason else DAMAGED
            continue

        # The newest undamaged file must fit this run; falling back would hide the mistake.
        _check_restore_state(path, state)
        if problem := difference(state):
            raise InputError(
                f"{path}: this restore file is not one of this run: {problem}. Put it elsewhere; "
                "the run then continues from its other restore file, if there is one; or start "
                "over with --overwrite 1."
            )

        # Rename damaged files, else the next save would keep one as backup.
        for damaged, problem in problems.items():
            logger.warning("%s: %s; continuing from %s", damaged, problem, path)
            if output.is_writer:
                damaged.replace(damaged.with_suffix(".damaged"))
        return state
    if problems:
        listed = "\n".join(f"  {path}: {reason}" for path, reason in problems.items())
        raise InputError(
            f"output_dir: no restore file can be read:\n{listed}\nStart over with --overwrite 1."
        )
    return None


class _WatchedFile(io.FileIO):
    """A file that records read errors, which ``zipfile`` reports as damage."""

    problem: OSError | None = None

    def readinto(self, buffer: Any) -> int:
        try:
            return cast(int, super().readinto(buffer))
        except OSError as error:
            self.problem = error
            raise

    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as error:
            self.problem = error
            raise


def _read_whole(path: Path) -> Any:
    """Read a restore file and verify its checksums; one of ``_DAMAGED`` is raised for damage."""
    try:
        watched = _WatchedFile(path)
    except OSError as error:
        raise _cannot_be_read(path, error) from error
    try:
        with io.BufferedReader(watched) as file:
            if format_of(file, path) is not Format.ARCHIVE:
                raise zipfile.BadZipFile
            # Checksums come second, when no part is known to exceed the file.
            content = read_archive(file)
            file.seek(0)
            with zipfile.ZipFile(file) as archive:
                if archive.testzip() is not None:
                    raise zipfile.BadZipFile
            return loaded(content)
    except _DAMAGED as error:
        if watched.problem is not None:
            raise _cannot_be_read(path, watched.problem) from error
        if isinstance(error, OSError):  # invalid offsets of a damaged archive
            raise zipfile.BadZipFile from error
        raise


def _cannot_be_read(path: Path, error: OSError) -> InputError:
    reason = error.strerror or type(error).__name__
    return InputError(
        f"{path}: cannot be read ({reason}). It is left as it is; see to it that it can be read, "
        "and give the same command again."
    )


def _check_restore_state(path: Path, content: Any) -> None:
    if not (isinstance(content, dict) and type(content.get("format")) is int):
        raise InputError(
            f"{path}: this is no restore file. Put it elsewhere; the run then continues from its "
            "other restore file, if there is one, and starts again otherwise."
        )
    if content["format"] != RESTORE_FORMAT:
        raise InputError(
            f"{path}: written in format {content['format']}, this version reads "
            f"{RESTORE_FORMAT}. Continue with the version that wrote it, or start over with "
            "--overwrite 1."
        )
