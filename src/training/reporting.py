"""What a run tells: log file and console, progress bar, TensorBoard, metrics as JSON lines.

Only rank 0 tells; on other ranks every method of a reporter does nothing.
"""

import json
import logging
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from src.training.output import OutputFolder

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
FILE_ONLY = "file_only"  # attribute of records that a console with a bar leaves out
MAX_EARLY_RECORDS = 10_000  # of a process that never opens a log file
MIN_REDRAW_SECONDS = 0.5  # of a progress bar on a terminal


class _Console(logging.Handler):
    """Writes records to standard error, above progress bars that are there."""

    def emit(self, record: logging.LogRecord) -> None:
        if not getattr(record, FILE_ONLY, False):
            tqdm.write(self.format(record), file=sys.stderr)


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
    path.parent.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(path, encoding="utf-8")
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


def _open_tensorboard(folder: Path, *, purge_step: int) -> "SummaryWriter | None":
    """A TensorBoard writer, or none, with a warning, where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        logger.warning("no TensorBoard file is written (%s); metrics.jsonl has all numbers", error)
        return None
    return SummaryWriter(str(folder), purge_step=purge_step)


class Throughput:
    """Clips per second and the share of time spent waiting for data, since the last restart."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget what was measured: after a line that reports it, after a validation."""
        self._started = time.perf_counter()
        self._clips = 0
        self._waited = 0.0

    def add(self, *, clips: int, waited: float) -> None:
        """Count a batch: its clips, on all ranks, and the seconds this rank waited for it."""
        self._clips += clips
        self._waited += waited

    def read(self) -> dict[str, float]:
        """``clips_per_second`` and ``data_wait`` (0 to 1)."""
        elapsed = max(time.perf_counter() - self._started, 1e-9)
        return {"clips_per_second": self._clips / elapsed, "data_wait": self._waited / elapsed}


class Reporter:
    """Progress bar, TensorBoard and metrics file of one run, as a context manager.

    Where standard error is no terminal, lines on the console stand for the bar.
    """

    def __init__(self, output: OutputFolder, *, total_steps: int, log_interval: int) -> None:
        """Prepare to report.

        Args:
            output: the run's folder.
            total_steps: number of updates of the run, for the progress bar.
            log_interval: updates between two lines of the log file and of the metrics file.
        """
        self._output = output
        self._total = total_steps
        self._interval = log_interval

    def start(self, *, step: int) -> None:
        """Begin after an update; what a killed run's metrics file holds beyond it is dropped.

        A run that begins at 0 has no restore file and makes everything anew.
        """
        if not self._output.is_writer:
            return
        beyond = step + 1 if step else 0
        self._drop_metrics_from(beyond)
        self._writer = _open_tensorboard(self._output.log, purge_step=beyond)
        self._metrics = self._output.metrics.open("a", encoding="utf-8")
        self._on_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=self._total, initial=step, unit="update", dynamic_ncols=True, desc="training",
            mininterval=MIN_REDRAW_SECONDS, disable=not self._on_terminal,
        )  # fmt: skip

    def _drop_metrics_from(self, step: int) -> None:
        if not self._output.metrics.exists():
            return
        lines = self._output.metrics.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _step_of(line) < step]
        self._output.metrics.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def line_is_due(self, step: int) -> bool:
        """Whether an update is one of those reported as lines; the same on every rank."""
        return step % self._interval == 0 or step == self._total

    def update(self, step: int, values: Mapping[str, float], *, throughput: Throughput) -> None:
        """Report one update: on the bar and to TensorBoard, and as a line where one is due.

        Args:
            step: number of the update.
            values: ``loss``, ``lr``, ``grad_norm`` and whatever else the task names.
            throughput: is restarted when a line is due.
        """
        if not self._output.is_writer:
            return
        speed = throughput.read()
        shown_speed = (
            f"{speed['clips_per_second']:.1f} clips/s, data wait {speed['data_wait']:.0%}"
        )
        self._bar.set_postfix_str(
            f"loss {values['loss']:.3f}, lr {values['lr']:.1e}, {shown_speed}", refresh=False
        )
        self._bar.update(1)
        self._to_tensorboard("train", values, step)
        if self.line_is_due(step):
            throughput.restart()
            self._to_tensorboard("train", speed, step)
            self._write_line(step, "train", {**values, **speed})
            numbers = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            line = f"update {step} of {self._total}: {numbers}, {shown_speed}"
            logger.info(line, extra={FILE_ONLY: self._on_terminal})

    def validation(self, step: int, metrics: Mapping[str, float], *, split: str = "valid") -> None:
        """Report metrics on a set that is not trained on."""
        if not self._output.is_writer:
            return
        self._to_tensorboard(split, metrics, step)
        self._write_line(step, split, metrics)

    def _to_tensorboard(self, split: str, values: Mapping[str, float], step: int) -> None:
        if self._writer is None:
            return
        for name, value in values.items():
            self._writer.add_scalar(f"{split}/{name}", value, step)

    def _write_line(self, step: int, split: str, values: Mapping[str, float]) -> None:
        # A skipped update of fp16 has no finite gradient norm, and JSON has no infinity.
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._metrics.write(json.dumps({"step": step, "split": split, **finite}) + "\n")
        self._metrics.flush()

    def progress(self, items: Iterable[Any], description: str, unit: str) -> Iterator[Any]:
        """Show a progress bar over an iterable, on rank 0, gone when it ends."""
        if not self._output.is_writer:
            return iter(items)
        return console_progress(items, description, unit)

    def close(self) -> None:
        """Finish the bar and the files."""
        if self._output.is_writer and hasattr(self, "_bar"):
            self._bar.close()
            if self._writer is not None:
                self._writer.close()
            self._metrics.close()

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def console_progress(items: Iterable[Any], description: str, unit: str) -> Iterator[Any]:
    """Iterate with a progress bar that vanishes at the end; none where there is no terminal.

    Args:
        items: tell the bar their number if they have a length.
        description: what is being done.
        unit: what one of the items is.
    """
    hidden = not sys.stderr.isatty()
    return iter(tqdm(items, desc=description, unit=unit, leave=False, disable=hidden))


def _step_of(line: str) -> int:
    """Update number of a line of the metrics file; one cut short by a kill is beyond any."""
    try:
        return int(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError):
        return sys.maxsize
