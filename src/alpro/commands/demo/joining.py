"""Long videos of the demo dataset: its clips one after the other, to search for moments in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import av

from alpro.commands.demo.planning import Pair
from alpro.commands.demo.texts import Record
from alpro.commands.demo.trajectories import FPS, NUM_FRAMES
from alpro.training.atomic_io import write_atomically

SPLITS = ("val", "test")
PAIRS_PER_VIDEO = 10
CLIP_SECONDS = NUM_FRAMES / FPS


def long_videos(pairs: Sequence[Pair]) -> dict[str, list[str]]:
    """Return the names of the clips of each long video, by its path without extension."""
    videos: dict[str, list[str]] = {}
    for split in SPLITS:
        own = [pair for pair in pairs if pair.split == split]
        for first in range(0, len(own), PAIRS_PER_VIDEO):
            some = own[first : first + PAIRS_PER_VIDEO]
            videos[f"{split}/{first // PAIRS_PER_VIDEO}"] = [
                clip.name for pair in some for clip in pair.clips
            ]
    return videos


def moment_rows(videos: dict[str, list[str]], records: Sequence[Record]) -> dict[str, list[Record]]:
    """Return the captions of each split with their moments, and those of the clip backwards.

    Args:
        videos: of `long_videos`.
        records: of the clips, as `describe` makes them.
    """
    captions = {record["clip_name"]: record["captions"] for record in records}
    rows: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for video, clips in videos.items():
        for number, clip in enumerate(clips):
            own, twin = CLIP_SECONDS * number, CLIP_SECONDS * (number ^ 1)  # pairs are neighbours
            rows[video.split("/")[0]].append(
                {
                    "video": f"{video}.mp4",
                    "caption": captions[clip][0],
                    "moment": [own, own + CLIP_SECONDS],
                    "reversed": [twin, twin + CLIP_SECONDS],
                }
            )
    return rows


def join_clips(clips: Iterable[Path], target: Path) -> None:
    """Write H.264 clips of one encoder and size as one video, without encoding them again."""

    def write(path: Path) -> None:
        with av.open(str(path), "w", format="mp4") as joined:
            stream, offset = None, 0
            for clip in clips:
                with av.open(str(clip)) as source:
                    (own,) = source.streams.video
                    stream = stream or joined.add_stream_from_template(own)
                    for packet in source.demux(own):
                        if packet.dts is None or packet.pts is None:  # the end of the stream
                            continue
                        packet.dts += offset
                        packet.pts += offset
                        packet.stream = stream
                        joined.mux(packet)
                    offset += own.duration or 0

    write_atomically(target, write)
