"""Reports of a run: log file and console, progress bar, TensorBoard, metrics as JSON lines.

Only rank 0 reports; on other ranks every method of a reporter does nothing.
"""

import json
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from alpro.errors import FILE_ONLY
from alpro.installation import AbsentPackageError, import_optional
from alpro.training.atomic_io import append_lines, full_disk_ends_run, keep_lines, sync_file
from alpro.training.run_directory import RunDirectory
from alpro.user_files import reason_of

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
MAX_EARLY_RECORDS = 10_000  # of a process that never opens a log file
_NUMBERS_REMAIN = "metrics.jsonl has all numbers"
MIN_REDRAW_SECONDS = 0.5  # of a progress bar on a terminal


class _Console(logging.Handler):
    """Writes records to standard error, above progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, FILE_ONLY, False):
            return
        with suppress(OSError):  # a file on a full disk, a pipe nobody reads: no reason to end
            tqdm.write(self.format(record), file=sys.stderr)


class _LogFile(logging.FileHandler):
    """Appends records to a file; where it cannot, says so once and leaves records out."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self._has_warned = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:  # it has tried to open the file again
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        if self.stream is not None:
            with suppress(OSError):  # closed nevertheless; the next record opens it
                self.stream.close()
        self.stream = None
        if not self._has_warned:
            self._has_warned = True
            problem = error.strerror or type(error).__name__
            message = "%s: cannot be written (%s); lines will be missing there"
            logger.warning(message, self.baseFilename, problem)


def start_logging(*, rank: int) -> None:
    """Log to the console; ranks other than 0 only warn.

    Rank 0 keeps its records for :func:`log_to_file`.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    _add_handler(_Console())
    if rank == 0:
        root.addHandler(MemoryHandler(MAX_EARLY_RECORDS))


def log_to_file(path: Path, *, rank: int) -> None:
    """Append what rank 0 logs from now on, and what it has logged before, to a file."""
    if rank != 0:
        return
    with full_disk_ends_run(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _LogFile(path)
    _add_handler(file)
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, MemoryHandler):
            handler.setTarget(file)
            handler.close()  # which hands its records on
            root.removeHandler(handler)


def _add_handler(handler: logging.Handler) -> None:
    handler.setFormatter(logging.Formatter(LOG_FORMAT, datefmt="%Y-%m-%d %H:%M:%S"))
    logging.getLogger().addHandler(handler)


class Throughput:
    """Clips per second, and shares of time that training waited, since the last restart."""

    def __init__(self, communication: Callable[[], float] | None = None) -> None:
        """Begin; `communication` gives the seconds spent in collectives, if there are any."""
        self._communication = communication
        self.restart()

    def restart(self) -> None:
        """Forget what was measured: after a line that reports it, after a validation."""
        self._started = time.perf_counter()
        self._clips = 0
        self._waited = 0.0
        self._exchanged_before = self._communication() if self._communication else 0.0

    def add(self, *, clips: int, waited: float) -> None:
        """Count a batch: its clips on all ranks, and the seconds that this rank waited for it."""
        self._clips += clips
        self._waited += waited

    def read(self) -> dict[str, float]:
        """``clips_per_second``, ``data_wait`` and, of several processes, ``communication``.

        The last two are shares of the time, from 0 to 1.
        """
        elapsed = max(time.perf_counter() - self._started, 1e-9)
        speed = {"clips_per_second": self._clips / elapsed, "data_wait": self._waited / elapsed}
        if self._communication:
            speed["communication"] = (self._communication() - self._exchanged_before) / elapsed
        return speed


class TensorBoard:
    """Writes scalars to an event file, if TensorBoard is installed and as long as that works."""

    def __init__(self, folder: Path, *, purge_step: int) -> None:
        """Open an event file; TensorBoard hides what earlier ones have from `purge_step` on."""
        self._writer: SummaryWriter | None = None
        self._hook = threading.excepthook
        threading.excepthook = self._leave_out_writing
        with self._given_up_on_error():
            try:
                module = import_optional("torch.utils.tensorboard", package="tensorboard")
            except AbsentPackageError as error:
                logger.warning("no TensorBoard file is written (%s); %s", error, _NUMBERS_REMAIN)
            else:
                self._writer = module.SummaryWriter(str(folder), purge_step=purge_step)

    def add(self, split: str, values: Mapping[str, float], *, step: int) -> None:
        """Add an update's numbers as ``split/name``."""
        with self._given_up_on_error():
            for name, value in values.items():
                if self._writer is not None:
                    self._writer.add_scalar(f"{split}/{name}", value, step)

    def flush(self) -> None:
        """Write what is buffered."""
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
            message = "the TensorBoard file cannot be written (%s); %s"
            logger.warning(message, reason, _NUMBERS_REMAIN)

    def _leave_out_writing(self, failure: threading.ExceptHookArgs) -> None:
        # Where TensorBoard's thread fails to write, the next call from here raises that again.
        of_tensorboard = type(failure.thread).__module__.partition(".")[0] == "tensorboard"
        if not (of_tensorboard and issubclass(failure.exc_type, OSError)):
            self._hook(failure)


class Reporter:
    """Progress bar, TensorBoard and metrics file of one run, as a context manager.

    Where standard error is no terminal, lines on the console stand for the bar.
    """

    def __init__(self, output: RunDirectory, *, total_steps: int, log_interval: int) -> None:
        """Prepare to report `total_steps` updates, each `log_interval`-th as a line."""
        self._output = output
        self._total = total_steps
        self._interval = log_interval
        self.num_lines = 0
        """Of the metrics file, on rank 0."""

    def start(self, *, step: int, num_lines: int = 0, last_step_before: int | None = None) -> None:
        """Begin after an update; what a killed run has reported beyond it is dropped.

        Args:
            step: number of the update; 0 for a fresh run.
            num_lines: of the metrics file, when that update was saved.
            last_step_before: its number in the run that is resumed, if updates were counted
                otherwise.
        """
        if not self._output.is_writer:
            return
        # Drop lines beyond the update, and let TensorBoard hide such numbers.
        self.num_lines = keep_lines(self._output.metrics, num_lines)
        append_lines(self._output.metrics, [])  # the file is there, even if nothing comes
        last = step if last_step_before is None else last_step_before
        purge_step = min(step, last) + 1 if last else 0
        self._tensorboard = TensorBoard(self._output.log, purge_step=purge_step)
        self._on_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=self._total, initial=step, unit="update", dynamic_ncols=True, desc="training",
            mininterval=MIN_REDRAW_SECONDS, disable=not self._on_terminal,
        )  # fmt: skip

    def flush(self) -> None:
        """Bring all reports to the disk, before a restore file relies on them."""
        if not self._output.is_writer:
            return
        self._tensorboard.flush()
        sync_file(self._output.metrics)

    def line_is_due(self, step: int) -> bool:
        """Whether an update is one of those reported as lines; the same on every rank."""
        return step % self._interval == 0 or step == self._total

    def update(self, step: int, values: Mapping[str, float], *, throughput: Throughput) -> None:
        """Report one update: on the bar and to TensorBoard, and as a line where one is due.

        `values` are ``loss``, ``lr``, ``grad_norm`` and the task's own; a line restarts the
        throughput.
        """
        if not self._output.is_writer:
            return
        # The bar and TensorBoard show every update.
        speed = throughput.read()
        shown_speed = f"{speed['clips_per_second']:.1f} clips/s, data wait {speed['data_wait']:.0%}"
        if "communication" in speed:
            shown_speed += f", communication {speed['communication']:.0%}"
        self._bar.set_postfix_str(
            f"loss {values['loss']:.3f}, lr {values['lr']:.1e}, {shown_speed}", refresh=False
        )
        self._bar.update(1)
        self._tensorboard.add("train", values, step=step)
        # The files have lines at the interval.
        if self.line_is_due(step):
            throughput.restart()
            self._tensorboard.add("train", speed, step=step)
            self._write_line(step, "train", {**values, **speed})
            numbers = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            line = f"update {step} of {self._total}: {numbers}, {shown_speed}"
            logger.info(line, extra={FILE_ONLY: self._on_terminal})

    def validation(self, step: int, metrics: Mapping[str, float], *, split: str = "valid") -> None:
        """Report metrics on a set that is not trained on."""
        if not self._output.is_writer:
            return
        self._tensorboard.add(split, metrics, step=step)
        self._write_line(step, split, metrics)

    def _write_line(self, step: int, split: str, values: Mapping[str, float]) -> None:
        # A skipped update of fp16 has no finite gradient norm, and JSON has no infinity.
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        line = json.dumps({"step": step, "split": split, **finite})
        append_lines(self._output.metrics, [line])
        self.num_lines += 1

    def progress(self, items: Iterable[Any], description: str, unit: str) -> Iterator[Any]:
        """Show a progress bar over an iterable, on rank 0, gone when it ends."""
        if not self._output.is_writer:
            return iter(items)
        return console_progress(items, description, unit)

    def close(self) -> None:
        """Finish the bar and the files."""
        if self._output.is_writer and hasattr(self, "_bar"):
            self._bar.close()
            self._tensorboard.close()

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def console_progress(items: Iterable[Any], description: str, unit: str) -> Iterator[Any]:
    """Iterate with a progress bar that vanishes at the end; none where there is no terminal."""
    hidden = not sys.stderr.isatty()
    return iter(tqdm(items, desc=description, unit=unit, leave=False, disable=hidden))
