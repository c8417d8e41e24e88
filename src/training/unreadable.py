"""Accounting of training videos that could not be read."""

import json
from collections.abc import Sequence

from src.datasets.retrieval import UnreadableVideo
from src.distributed.engine import Engine
from src.errors import InputError
from src.training.output import OutputFolder

NUM_NAMED = 10  # videos that the final message names


class UnreadableLedger:
    """Counts replaced videos, lists them in a file, and stops a run that meets too many."""

    def __init__(
        self, output: OutputFolder, *, max_fraction: float, samples_per_epoch: int
    ) -> None:
        """Start counting.

        Args:
            output: whose ``log/unreadable_videos.jsonl`` lists the videos.
            max_fraction: largest share of this rank's samples of one epoch that may be replaced.
            samples_per_epoch: number of this rank's samples of one epoch.
        """
        self._output = output
        self._limit = max_fraction * samples_per_epoch
        self._max_fraction = max_fraction
        self._samples_per_epoch = samples_per_epoch
        self._epoch = 0
        self._in_epoch: list[UnreadableVideo] = []
        self._unwritten: list[UnreadableVideo] = []
        self.total = 0

    def record(self, videos: Sequence[UnreadableVideo], *, epoch: int) -> None:
        """Take note of a batch's unreadable videos.

        Raises:
            InputError: if this epoch's share of replaced samples is above the limit.
        """
        if epoch != self._epoch:
            self._epoch, self._in_epoch = epoch, []
        self._in_epoch += videos
        self._unwritten += videos
        self.total += len(videos)
        if len(self._in_epoch) > self._limit:
            named = "\n".join(f"  {v.video_id}: {v.reason}" for v in self._in_epoch[:NUM_NAMED])
            raise InputError(
                f"{len(self._in_epoch)} of the {self._samples_per_epoch} training samples of epoch "
                f"{epoch + 1} could not be read, more than max_unreadable_fraction "
                f"{self._max_fraction} allows; the first of them:\n{named}\n"
                "Repair or remove these videos, or raise max_unreadable_fraction."
            )

    def write(self, engine: Engine) -> None:
        """Append what all ranks have met since the last time; every rank must call this."""
        new = [video for part in engine.gather_objects(self._unwritten) for video in part]
        self._unwritten = []
        if not (new and self._output.is_writer):
            return
        self._output.unreadable.parent.mkdir(parents=True, exist_ok=True)
        with self._output.unreadable.open("a", encoding="utf-8") as file:
            for video in new:
                record = {"video_id": video.video_id, "reason": video.reason}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
