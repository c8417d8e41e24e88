"""Accounting of training videos and images that could not be read."""

import json
import logging
from collections.abc import Mapping, Sequence

from src.datasets.unreadable import UnreadableVideo
from src.distributed.engine import Engine
from src.errors import InputError
from src.training.output import OutputFolder

logger = logging.getLogger(__name__)

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
        self._num_in_epoch = 0
        self._unwritten: list[UnreadableVideo] = []
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
        """What a resumed run needs to go on counting."""
        return {"epoch": self._epoch, "num_in_epoch": self._num_in_epoch, "total": self.total}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Take up a state made by :meth:`state_dict`."""
        self._epoch, self._num_in_epoch = state["epoch"], state["num_in_epoch"]
        self.total = state["total"]

    def write(self, engine: Engine) -> None:
        """Append what all ranks have met since the last time; every rank must call this."""
        new = [video for part in engine.gather_objects(self._unwritten) for video in part]
        self._unwritten = []
        if new and self._output.is_writer:
            self._append(new)

    def num_on_all_ranks(self, engine: Engine) -> float:
        """``total`` summed over the ranks; every rank must call this."""
        return engine.sum({"unreadable_videos": self.total})["unreadable_videos"]

    def _append(self, videos: Sequence[UnreadableVideo]) -> None:
        self._output.unreadable.parent.mkdir(parents=True, exist_ok=True)
        with self._output.unreadable.open("a", encoding="utf-8") as file:
            for video in videos:
                record = {"video_id": video.video_id, "reason": video.reason}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
