"""Long videos of the demo dataset: its clips one after the other, to search for moments in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av

from alpro.training.atomic_io import write_atomically

CLIPS_PER_VIDEO = 25
FOLDER = "long"


def long_videos(rows: Sequence[dict[str, Any]], *, split: str) -> Iterator[tuple[str, list[str]]]:
    """Name and clips of each long video of a split; `rows` are its captions."""
    names = list(dict.fromkeys(row["clip_name"] for row in rows))
    for first in range(0, len(names), CLIPS_PER_VIDEO):
        yield f"{split}{first // CLIPS_PER_VIDEO}", names[first : first + CLIPS_PER_VIDEO]


def moment_rows(rows: Sequence[dict[str, Any]], *, split: str, seconds: float) -> list[Any]:
    """Captions with the moments of their clips, which are `seconds` long each."""
    captions: dict[str, list[str]] = {}
    for row in rows:
        captions.setdefault(row["clip_name"], []).append(row["caption"])
    return [
        {"video": name, "start": i * seconds, "end": (i + 1) * seconds, "caption": caption}
        for name, clips in long_videos(rows, split=split)
        for i, clip in enumerate(clips)
        for caption in captions[clip]
    ]


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
