"""Made-up annotations in the forms in which data sets are published."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alpro.commands.convert.command import main

Row = dict[str, str]


def read_jsonl(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_lines(path: Path, lines: Iterable[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def convert(name: str, source: Path | Sequence[Path], output: Path, *flags: str) -> int:
    """Run the command; returns its exit code."""
    sources = [source] if isinstance(source, Path) else source
    return main([name, "--source", *map(str, sources), "--output", str(output), *flags])


def msrvtt_info(videos: Mapping[str, str], *, num_captions: int = 2) -> dict[str, Any]:
    """The publishers' JSON of these videos, with the split of each; captions of all in turns."""
    return {
        "info": {"contributor": "nobody", "version": "1.0"},
        "videos": [
            {"video_id": video, "split": split, "category": 0, "url": "", "id": number}
            for number, (video, split) in enumerate(videos.items())
        ],
        "sentences": [
            {"caption": f"{video} says {turn} ", "video_id": video, "sen_id": 0}
            for turn in range(num_captions)
            for video in videos
        ],
    }


def questions(*rows: tuple[int, str, str]) -> list[dict[str, Any]]:
    """Questions with answers about numbered videos."""
    return [
        {"answer": answer, "category_id": 1, "id": number, "question": asked, "video_id": video}
        for number, (video, asked, answer) in enumerate(rows)
    ]


def write_questions(
    folder: Path, *, train: Sequence[Any], val: Sequence[Any], test: Sequence[Any]
) -> Path:
    for split, rows in (("train", train), ("val", val), ("test", test)):
        write_json(folder / f"{split}_qa.json", rows)
    return folder
