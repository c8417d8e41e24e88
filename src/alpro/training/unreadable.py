"""Accounting of training videos and images that could not be read."""

import json
import logging
from collections.abc import Mapping, Sequence

from alpro.datasets.unreadable import UnreadableVideo
from alpro.distributed.engine import Engine
from alpro.errors import InputError
from alpro.training.atomic_io import append_lines, keep_lines, sync_file
from alpro.training.run_directory import RunDirectory

logger = logging.getLogger(__name__)

NUM_NAMED = 10  # videos that the final message names


class UnreadableVideoLog:
    """Counts replaced videos, lists them in a file, and stops a run that meets too many."""

    def __init__(
        self, output: RunDirectory, *, max_fraction: float, samples_per_epoch: int
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
        self._num_in_epoch = 0
        self._unwritten: list[UnreadableVideo] = []
        self._num_listed = 0
        self.total = 0
        """Videos that this rank could not read since the run began, counted at each attempt."""

    def record(self, videos: Sequence[UnreadableVideo], *, epoch: int) -> None:
        """Take note of a batch's unreadable videos.

        Raises:
            InputError: if this epoch's share of replaced samples is above the limit; the videos are
                then in the list.
        """
        if epoch != self._epoch:
            self._epoch, self._num_in_epoch = epoch, 0
        self._num_in_epoch += len(videos)
        self._unwritten += videos
        self.total += len(videos)
        for video in videos:
            logger.warning("unreadable, thus replaced: %s: %s", video.video_id, video.reason)
        if self._num_in_epoch > self._limit:
            named = "\n".join(f"  {v.video_id}: {v.reason}" for v in self._unwritten[-NUM_NAMED:])
            self._append(self._unwritten)  # there is no next save; each rank for itself
            self._unwritten = []
            raise InputError(
                f"{self._num_in_epoch} of the {self._samples_per_epoch} training samples of epoch "
                f"{epoch + 1} could not be read, more than max_unreadable_fraction "
                f"{self._max_fraction} allows; the last of them:\n{named}\n"
                "Repair or remove them, or raise max_unreadable_fraction."
            )

    def state_dict(self) -> dict[str, int]:
        """What a resumed run needs to go on counting, and listing."""
        return {
            "epoch": self._epoch,
            "num_in_epoch": self._num_in_epoch,
            "total": self.total,
            "num_listed": self._num_listed,
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Take up a state made by :meth:`state_dict`.

        What a killed run has listed since leaves the list: it will be met again.
        """
        self._epoch, self._num_in_epoch = state["epoch"], state["num_in_epoch"]
        self.total, self._num_listed = state["total"], state["num_listed"]
        if self._output.is_writer:
            keep_lines(self._output.unreadable, self._num_listed)

    def write(self, engine: Engine) -> None:
        """Append what all ranks have met since the last time; every rank must call this.

        Raises:
            RunError: if the disk is full.
        """
        new = [video for part in engine.gather_objects(self._unwritten) for video in part]
        self._unwritten = []
        self._num_listed += len(new)
        if new and self._output.is_writer:
            self._append(new)

    def num_on_all_ranks(self, engine: Engine) -> float:
        """``total`` summed over the ranks; every rank must call this."""
        return engine.sum({"unreadable_videos": self.total})["unreadable_videos"]

    def _append(self, videos: Sequence[UnreadableVideo]) -> None:
        records = [{"video_id": video.video_id, "reason": video.reason} for video in videos]
        lines = [json.dumps(record, ensure_ascii=False) for record in records]
        append_lines(self._output.unreadable, lines)
        sync_file(self._output.unreadable)  # restore files count on it
