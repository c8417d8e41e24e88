"""What is known of a video that gave no frames, from the dataset to the report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UnreadableVideo:
    """A video that gave no frames, and why."""

    video_id: str
    reason: str
