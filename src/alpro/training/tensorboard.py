"""Curves of a run for TensorBoard, which a run can do without: metrics.jsonl has the numbers."""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from alpro.optional_packages import AbsentPackageError, import_optional
from alpro.user_files import reason_of

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)


class TensorBoard:
    """Writes scalars to an event file.

    Where TensorBoard is not installed, or its file cannot be written, it says so once, and no more
    is written.
    """

    def __init__(self, folder: Path, *, purge_step: int) -> None:
        """Open an event file.

        Args:
            folder: where it shall be.
            purge_step: what earlier files hold from this step on is not shown.
        """
        self._writer: SummaryWriter | None = None
        self._hook = threading.excepthook
        threading.excepthook = self._leave_out_writing
        with self._given_up_on_error():
            self._writer = _open(folder, purge_step=purge_step)

    def add(self, split: str, values: Mapping[str, float], *, step: int) -> None:
        """Add an update's numbers as ``split/name``."""
        with self._given_up_on_error():
            for name, value in values.items():
                if self._writer is not None:
                    self._writer.add_scalar(f"{split}/{name}", value, step)

    def flush(self) -> None:
        """Write what is waiting to be written."""
        with self._given_up_on_error():
            if self._writer is not None:
                self._writer.flush()

    def close(self) -> None:
        """Write the rest."""
        with self._given_up_on_error():
            if self._writer is not None:
                self._writer.close()
        threading.excepthook = self._hook

    @contextmanager
    def _given_up_on_error(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  # of packages that do not fit each other, too
            self._writer = None  # whose thread has ended: it would not go on by itself
            is_of_system = isinstance(error, OSError | UnicodeError)
            reason = reason_of(error) if is_of_system else f"{type(error).__name__}: {error}"
            _warn("the TensorBoard file cannot be written (%s)", reason)

    def _leave_out_writing(self, failure: threading.ExceptHookArgs) -> None:
        """Keep silent where TensorBoard's thread fails to write: the next call here raises that."""
        of_tensorboard = type(failure.thread).__module__.partition(".")[0] == "tensorboard"
        if not (of_tensorboard and issubclass(failure.exc_type, OSError)):
            self._hook(failure)


def _open(folder: Path, *, purge_step: int) -> "SummaryWriter | None":
    try:
        tensorboard = import_optional("torch.utils.tensorboard", package="tensorboard")
    except AbsentPackageError as error:
        _warn("no TensorBoard file is written (%s)", error)
        return None
    writer: SummaryWriter = tensorboard.SummaryWriter(str(folder), purge_step=purge_step)
    return writer


def _warn(message: str, problem: object) -> None:
    logger.warning(f"{message}; metrics.jsonl has all numbers", problem)
