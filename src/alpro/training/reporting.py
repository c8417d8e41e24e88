"""Reporting on rank 0: log file and console, progress bar, TensorBoard, metrics as JSON lines."""

import json
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
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
        with suppress(OSError):  # a full disk or a closed pipe must not end the run
            tqdm.write(self.format(record), file=sys.stderr)


class _LogFile(logging.FileHandler):
    """Appends records to a file; drops them, with one warning, where it cannot be written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self._has_warned = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:  # raised while the file is opened again
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        if self.stream is not None:
            with suppress(OSError):  # closed anyway; the next record reopens it
                self.stream.close()
        self.stream = None
        if not self._has_warned:
            self._has_warned = True
            problem = error.strerror or type(error).__name__
            message = "%s: cannot be written (%s); lines will be missing there"
            logger.warning(message, self.baseFilename, problem)


def start_logging(*, rank: int) -> None:
    """Log to the console, on ranks other than 0 only warnings; buffer for :func:`log_to_file`."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    _add_handler(_Console())
    if rank == 0:
        root.addHandler(MemoryHandler(MAX_EARLY_RECORDS))


def log_to_file(path: Path, *, rank: int) -> None:
    """Append rank 0's buffered and future records to a file."""
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
            handler.close()  # flushes its records
            root.removeHandler(handler)


def _add_handler(handler: logging.Handler) -> None:
    handler.setFormatter(logging.Formatter(LOG_FORMAT, datefmt="%Y-%m-%d %H:%M:%S"))
    logging.getLogger().addHandler(handler)


class Throughput:
    """Clips per second and shares of waiting time since the last restart."""

    def __init__(self, communication: Callable[[], float] | None = None) -> None:
        """Start; `communication` returns the seconds spent in collectives."""
        self._communication = communication
        self.restart()

    def restart(self) -> None:
        """Restart, after a report or a validation."""
        self._started = time.perf_counter()
        self._clips = 0
        self._waited = 0.0
        self._exchanged_before = self._communication() if self._communication else 0.0

    def add(self, *, clips: int, waited: float) -> None:
        """Count a batch: its clips on all ranks, and this rank's seconds of waiting."""
        self._clips += clips
        self._waited += waited

    def read(self) -> dict[str, float]:
        """``clips_per_second``, and ``data_wait`` and ``communication`` as shares from 0 to 1."""
        elapsed = max(time.perf_counter() - self._started, 1e-9)
        speed = {"clips_per_second": self._clips / elapsed, "data_wait": self._waited / elapsed}
        if self._communication:
            speed["communication"] = (self._communication() - self._exchanged_before) / elapsed
        return speed


class TensorBoard:
    """Writes scalars to an event file, as long as TensorBoard is installed and works."""

    def __init__(self, folder: Path, *, purge_step: int) -> None:
        """Open an event file that hides earlier ones from `purge_step` on."""
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
        """Write the rest, and restore the exception hook."""
        with self._given_up_on_error():
            if self._writer is not None:
                self._writer.close()
        threading.excepthook = self._hook

    @contextmanager
    def _given_up_on_error(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  # incompatible packages raise anything
            self._writer = None  # its thread has ended
            is_of_system = isinstance(error, OSError | UnicodeError)
            reason = reason_of(error) if is_of_system else f"{type(error).__name__}: {error}"
            message = "the TensorBoard file cannot be written (%s); %s"
            logger.warning(message, reason, _NUMBERS_REMAIN)

    def _leave_out_writing(self, failure: threading.ExceptHookArgs) -> None:
        # Write errors of TensorBoard's thread are raised again by the next call from here.
        of_tensorboard = type(failure.thread).__module__.partition(".")[0] == "tensorboard"
        if not (of_tensorboard and issubclass(failure.exc_type, OSError)):
            self._hook(failure)


class Reporter(AbstractContextManager["Reporter"]):
    """Progress bar (on a terminal, else log lines), TensorBoard and metrics file of one run."""

    def __init__(self, output: RunDirectory, *, total_steps: int, log_interval: int) -> None:
        """Report `total_steps` updates, every `log_interval`-th as a line."""
        self._output = output
        self._total = total_steps
        self._interval = log_interval
        self.num_lines = 0
        """Length of the metrics file, on rank 0."""

    def start(self, *, step: int, num_lines: int = 0, last_step_before: int | None = None) -> None:
        """Start after an update; later reports of a killed run are dropped.

        Args:
            step: number of the update; 0 for a fresh run.
            num_lines: length of the metrics file at that update.
            last_step_before: its number in the resumed run, if that had another world size.
        """
        if not self._output.is_writer:
            return
        # Drop lines after the update, and let TensorBoard hide such numbers.
        self.num_lines = keep_lines(self._output.metrics, num_lines)
        append_lines(self._output.metrics, [])  # the file exists even without reports
        last = step if last_step_before is None else last_step_before
        purge_step = min(step, last) + 1 if last else 0
        self._tensorboard = TensorBoard(self._output.log, purge_step=purge_step)
        self._on_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=self._total, initial=step, unit="update", dynamic_ncols=True, desc="training",
            mininterval=MIN_REDRAW_SECONDS, disable=not self._on_terminal,
        )  # fmt: skip

    def flush(self) -> None:
        """Sync all reports to the disk, before a restore file stores their length."""
        if not self._output.is_writer:
            return
        self._tensorboard.flush()
        sync_file(self._output.metrics)

    def line_is_due(self, step: int) -> bool:
        """Return whether an update is reported as a line; the same on every rank."""
        return step % self._interval == 0 or step == self._total

    def update(self, step: int, values: Mapping[str, float], *, throughput: Throughput) -> None:
        """Report ``loss``, ``lr``, ``grad_norm`` and the task's own values of one update."""
        if not self._output.is_writer:
            return
        # Bar and TensorBoard: every update.
        speed = throughput.read()
        shown_speed = f"{speed['clips_per_second']:.1f} clips/s, data wait {speed['data_wait']:.0%}"
        if "communication" in speed:
            shown_speed += f", communication {speed['communication']:.0%}"
        self._bar.set_postfix_str(
            f"loss {values['loss']:.3f}, lr {values['lr']:.1e}, {shown_speed}", refresh=False
        )
        self._bar.update(1)
        self._tensorboard.add("train", values, step=step)
        # Log and metrics file: a line at the interval, which restarts the throughput.
        if self.line_is_due(step):
            throughput.restart()
            self._tensorboard.add("train", speed, step=step)
            self._write_line(step, "train", {**values, **speed})
            numbers = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            line = f"update {step} of {self._total}: {numbers}, {shown_speed}"
            logger.info(line, extra={FILE_ONLY: self._on_terminal})

    def validation(self, step: int, metrics: Mapping[str, float], *, split: str = "valid") -> None:
        """Report metrics on a validation or test set."""
        if not self._output.is_writer:
            return
        self._tensorboard.add(split, metrics, step=step)
        self._write_line(step, split, metrics)

    def _write_line(self, step: int, split: str, values: Mapping[str, float]) -> None:
        # JSON has no infinity, the gradient norm of a skipped fp16 update.
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        append_lines(self._output.metrics, [json.dumps({"step": step, "split": split, **finite})])
        self.num_lines += 1

    def progress(self, items: Iterable[Any], description: str, unit: str) -> Iterator[Any]:
        """Iterate with a progress bar on rank 0."""
        is_shown = self._output.is_writer
        return console_progress(items, description, unit) if is_shown else iter(items)

    def close(self) -> None:
        """Finish the bar and the files."""
        if self._output.is_writer and hasattr(self, "_bar"):
            self._bar.close()
            self._tensorboard.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def console_progress(items: Iterable[Any], description: str, unit: str) -> Iterator[Any]:
    """Iterate with a progress bar, on a terminal, that vanishes at the end."""
    hidden = not sys.stderr.isatty()
    return iter(tqdm(items, desc=description, unit=unit, leave=False, disable=hidden))
