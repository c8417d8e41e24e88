"""What a run or command will write, tried before its work: folders, names, permissions, space."""

import errno
import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from src.errors import InputError
from src.training.writing import free_bytes, full_disk_ends_run, temporary_of
from src.user_files import reason_of, why_unreadable

_PROBE_BYTES = 1 << 16  # small files of a run take as much


def check_output_folder(
    root: Path,
    *,
    patterns: Iterable[str] = (),
    appended: Iterable[str] = (),
    named_by: str = "output_dir",
    tries: bool = True,
) -> None:
    """Check, without making anything, that a folder is there or can be made, and be written to.

    Args:
        root: the folder.
        patterns: files that will be written below it, in place of those that are there.
        appended: files that will be appended to.
        named_by: the key or flag that names the folder.
        tries: write to the folder, or to the one that it will be made in, for a moment.

    Raises:
        InputError: it cannot be, or something else is in the way of a file.
        RunError: the disk is full.
    """
    appended = [root / name for name in appended]
    files = [root / "file", *appended]
    for pattern in patterns:
        files += [root / pattern.replace("*", "0"), *root.glob(pattern)]
    reasons = filter(None, [*map(_trouble, files), *map(_appending_trouble, appended)])
    if reason := next(reasons, None) or (_trial_trouble(root, root) if tries else None):
        raise InputError(f"{named_by}: {root}: {reason}. Change that, or give another {named_by}.")


def check_output_file(path: Path, *, named_by: str) -> None:
    """Check that a file can be written, in place of the one that is there.

    Args:
        path: of the file.
        named_by: the flag that names it.

    Raises:
        InputError: it cannot.
        RunError: the disk is full.
    """
    if reason := _trouble(path) or _trial_trouble(path.parent, path):
        raise InputError(f"cannot write {path}: {reason}; give another {named_by}")


def check_space(root: Path, *, num_bytes: int) -> None:
    """Check that a disk has room for what a run must write.

    Raises:
        RunError: it has not.
    """
    with full_disk_ends_run(root, num_bytes=num_bytes):
        if 0 < free_bytes(root) < num_bytes:  # some network file systems report 0
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _trouble(file: Path) -> str | None:
    """Reason why a file cannot be written in place of what is there, by way of a temporary one."""
    names = (file, temporary_of(file))
    reason = _folder_trouble(file.parent, names=[path.name for path in names])
    return reason or next(filter(None, map(_file_trouble, names)), None)


def _folder_trouble(folder: Path, *, names: Iterable[str]) -> str | None:
    """Reason why files cannot be made in a folder that may have to be made itself."""
    try:
        path = folder.absolute()
    except OSError as error:
        return f"the current folder cannot be read ({reason_of(error)})"
    chain = [*reversed(path.parents), path]
    there = [part for part in chain if os.path.lexists(part)]
    nearest = there[-1]
    missing = [part.name for part in chain[len(there) :]]
    if not os.path.isdir(nearest):
        is_link = os.path.islink(nearest) and not os.path.exists(nearest)
        what = "is a link to a folder that does not exist" if is_link else "is not a folder"
        return f"{nearest} {what}"
    if not os.access(nearest, os.W_OK | os.X_OK):
        return f"the folder {nearest} cannot be written to"
    for name in (*missing, *names):
        try:
            os.lstat(nearest / name)
        except FileNotFoundError:
            continue
        except OSError as error:
            shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
            return f"{nearest / shown} cannot be made ({reason_of(error)})"
    return None


def _file_trouble(path: Path) -> str | None:
    """Reason why something that is there cannot be replaced by a file."""
    try:
        mode = os.stat(path).st_mode
    except OSError:  # a folder in its way, or a link to nowhere
        is_link = os.path.islink(path)
        return f"{path} is a link to a file that does not exist" if is_link else None
    if stat.S_ISREG(mode):
        return None
    return f"{path} {why_unreadable(path)}"


def _appending_trouble(path: Path) -> str | None:
    if not path.exists() or os.access(path, os.R_OK | os.W_OK):
        return None
    return f"{path} cannot be written to"


def _trial_trouble(root: Path, path: Path) -> str | None:
    """Reason why no file can be made in a folder, or in the one that it will be made in.

    Args:
        root: the folder.
        path: what shall be written, for the message of a full disk.
    """
    absolute = root.absolute()
    folder = next(parent for parent in (absolute, *absolute.parents) if parent.is_dir())
    try:
        with full_disk_ends_run(path), tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return f"no file can be made in {folder} ({reason_of(error)})"
    return None


_SHOWN = 40  # characters of a name that is too long
