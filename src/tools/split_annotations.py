"""Divide annotations: ``python -m src.tools.split_annotations --captions FILE --output DIR``.

Writes ``train.jsonl``, ``val.jsonl`` and ``test.jsonl``; of questions ``train_qa.jsonl`` and so on,
and ``ans2label.json``, which numbers the training answers. All rows of a video go to one of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.datasets.annotations import read_captions
from src.datasets.questions import read_questions
from src.errors import InputError
from src.tools.command import counted, exit_code_of, not_negative

SPLITS = ("train", "val", "test")
DEFAULT_SHARE = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    flags = _parser().parse_args(arguments)
    return exit_code_of(lambda: _split(flags))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m src.tools.split_annotations",
        description="Divide captions or questions into sets for training, validation and test.",
        allow_abbrev=False,
    )
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--captions", type=Path, metavar="FILE", help="captions, .csv or .jsonl")
    given.add_argument("--questions", type=Path, metavar="FILE", help="questions, .csv or .jsonl")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="for the sets")
    share_help = f"share of the videos (default {DEFAULT_SHARE})"
    parser.add_argument("--val", type=_share, default=DEFAULT_SHARE, help=share_help)
    parser.add_argument("--test", type=_share, default=DEFAULT_SHARE, help=share_help)
    parser.add_argument("--seed", type=not_negative, default=0, help="another one divides anew")
    parser.add_argument("--overwrite", action="store_true", help="replace sets that are there")
    return parser


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share, from 0 to below 1")
    return share


def _split(flags: argparse.Namespace) -> None:
    records, ending = _read(flags)
    place = "clip_name" if flags.captions else "video_id"
    sets = split_by_video(
        records, place=place, shares={"val": flags.val, "test": flags.test}, seed=flags.seed
    )
    texts = {
        f"{name}{ending}.jsonl": "".join(_line(record) for record in rows)
        for name, rows in sets.items()
        if rows
    }
    if flags.questions:
        answers = sorted({record["answer"] for record in sets["train"]})
        labels = {answer: label for label, answer in enumerate(answers)}
        texts["ans2label.json"] = json.dumps(labels, ensure_ascii=False, indent=0) + "\n"
    _write(texts, folder=flags.output, overwrite=flags.overwrite)
    for name, rows in sets.items():
        videos = {record[place] for record in rows}
        told = f"{counted(len(rows), 'row')} of {counted(len(videos), 'video')}"
        print(f"{name}: {told}" if rows else f"{name}: none")


def _read(flags: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """The rows as they are written, and how their files' names end."""
    if flags.captions:
        rows = read_captions(flags.captions)
        return [{"caption": row.caption, "clip_name": row.video_id} for row in rows], ""
    return [
        {
            "question": row.question,
            "answer": row.answer,
            "video_id": row.video_id,
            "answer_type": row.answer_type,
        }
        for row in read_questions(flags.questions)
    ], "_qa"


def split_by_video(
    records: Sequence[dict[str, Any]], *, place: str, shares: dict[str, float], seed: int
) -> dict[str, list[dict[str, Any]]]:
    """Divide rows, in their order, so that no video is in two sets.

    Videos are ordered by a hash of their id, so that captions and questions about the same videos
    are divided alike, and the order of the rows does not matter.

    Args:
        records: the rows.
        place: the key of the video's id.
        shares: of the videos, for each set but ``train``, which gets what is left.
        seed: changes the order.

    Raises:
        InputError: if there are too few videos.
    """
    videos = sorted({record[place] for record in records}, key=lambda name: _hash(name, seed=seed))
    split_of: dict[str, str] = {}
    for name, share in shares.items():
        count = max(1, round(share * len(videos))) if share else 0
        taken = len(split_of)
        split_of.update(dict.fromkeys(videos[taken : taken + count], name))
    if len(split_of) >= len(videos):
        raise InputError(
            f"--val and --test leave none of {counted(len(videos), 'video')} to train on; lower "
            "them, or annotate more videos"
        )
    sets: dict[str, list[dict[str, Any]]] = {name: [] for name in SPLITS}
    for record in records:
        sets[split_of.get(record[place], "train")].append(record)
    return sets


def _hash(video_id: str, *, seed: int) -> str:
    return hashlib.sha256(f"{seed} {video_id}".encode()).hexdigest()


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _write(texts: dict[str, str], *, folder: Path, overwrite: bool) -> None:
    there = [name for name in texts if (folder / name).exists()]
    if there and not overwrite:
        raise InputError(f"--output {folder}: {', '.join(there)}: there already; add --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
