"""Split annotations: ``alpro split-annotations --captions FILE --output DIR``.

Writes ``train.jsonl``, ``val.jsonl`` and ``test.jsonl``; of questions ``train_qa.jsonl`` and so on,
and ``ans2label.json``, which numbers the training answers. All rows of a video go to one of them.
With ``--like`` the videos of sets that were divided before stay where they are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from alpro.commands.cli import MAX_SEED, at_most, exit_code_of, path_flag
from alpro.commands.convert.conversion import write_all
from alpro.datasets.annotations import read_captions
from alpro.errors import InputError, pluralize
from alpro.tasks.question_answering.annotations import read_questions
from alpro.training.writable import check_output_folder

SPLITS = ("train", "val", "test")
DEFAULT_SHARE = 0.1
FEW_VIDEOS = 20  # below this a note is printed for a set of evaluation


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    flags = _parser().parse_args(arguments)
    return exit_code_of(lambda: _split(flags))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alpro split-annotations",
        description="Divide captions or questions into sets for training, validation and test.",
        allow_abbrev=False,
    )
    given = parser.add_mutually_exclusive_group(required=True)
    of_texts: dict[str, Any] = {"type": path_flag, "metavar": "FILE"}
    given.add_argument("--captions", help="as training reads them", **of_texts)
    given.add_argument("--questions", help="questions, likewise", **of_texts)
    parser.add_argument(
        "--output", type=path_flag, required=True, metavar="DIR", help="for the sets"
    )
    share_help = f"share of the videos (default {DEFAULT_SHARE})"
    parser.add_argument("--val", type=_share, default=DEFAULT_SHARE, help=share_help)
    parser.add_argument("--test", type=_share, default=DEFAULT_SHARE, help=share_help)
    parser.add_argument(
        "--like",
        type=path_flag,
        metavar="DIR",
        help="sets of captions divided before: their videos go where they went; only others are"
        " divided by the shares",
    )
    parser.add_argument(
        "--seed", type=at_most(MAX_SEED), default=0, help="another seed gives other splits"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing sets")
    return parser


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share: 0 or more, below 1")
    return share


def _split(flags: argparse.Namespace) -> None:
    check_output_folder(flags.output, named_by="--output")
    records, ending = _read(flags)
    place = "clip_name" if flags.captions else "video_id"
    sets = split_by_video(
        records,
        place=place,
        shares={"val": flags.val, "test": flags.test},
        seed=flags.seed,
        known=_divided_before(flags.like) if flags.like else {},
    )
    # Texts of the files; a set without rows gets no file.
    files = {flags.output / f"{name}{ending}.jsonl": rows for name, rows in sets.items()}
    texts = {path: "".join(_line(row) for row in rows) for path, rows in files.items() if rows}
    # Labels number the training answers in alphabetical order.
    if flags.questions:
        answers = sorted({record["answer"] for record in sets["train"]})
        labels = {answer: label for label, answer in enumerate(answers)}
        text = json.dumps(labels, ensure_ascii=False, indent=0) + "\n"
        texts[flags.output / "ans2label.json"] = text
    # A file of an earlier split that would be empty now must not remain.
    left_over = [path for path in files if path not in texts and path.exists()]
    if left_over and not flags.overwrite:
        raise InputError(
            f"{left_over[0]}: exists, but would be empty now; add --overwrite to remove it"
        )
    writers: dict[Path, Callable[[Path], None]] = {
        path: partial(_write_text, text) for path, text in texts.items()
    }
    write_all(writers, may_overwrite=flags.overwrite)
    for path in left_over:
        path.unlink()
    for name, rows in sets.items():
        videos = {record[place] for record in rows}
        message = f"{pluralize(len(rows), 'row')} of {pluralize(len(videos), 'video')}"
        is_small = name != "train" and len(videos) < FEW_VIDEOS
        few = "; too few for reliable scores" if is_small else ""
        print(f"{name}: {message}{few}" if rows else f"{name}: none")


def _divided_before(folder: Path) -> dict[str, str]:
    """Video -> its set, for the sets of captions in a folder.

    Raises:
        InputError: there are none, or a video is in two of them.
    """
    split_of: dict[str, str] = {}
    for name in SPLITS:
        path = folder / f"{name}.jsonl"
        if not path.is_file():
            continue
        for video_id in {row.video_id for row in read_captions(path)}:
            if split_of.setdefault(video_id, name) != name:
                other = split_of[video_id]
                raise InputError(f"{path}: video {video_id!r} is also in {other}.jsonl")
    if not split_of:
        raise InputError(f"--like {folder}: no {', '.join(f'{name}.jsonl' for name in SPLITS)}")
    return split_of


def _read(flags: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """Rows as they are written, and the suffix of their files' names."""
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
    records: Sequence[dict[str, Any]],
    *,
    place: str,
    shares: dict[str, float],
    seed: int,
    known: Mapping[str, str],
) -> dict[str, list[dict[str, Any]]]:
    """Split rows, in their order, so that no video is in two sets.

    Videos are ordered by a hash of their id, so that the order of the rows does not matter.

    Args:
        records: the rows.
        place: the key of the video's id.
        shares: of the videos, for each set but ``train``, which gets what is left.
        seed: changes the order.
        known: video -> its set, for videos that were divided before.

    Raises:
        InputError: no video is left for training.
    """
    videos = {record[place] for record in records}
    # Videos of earlier sets keep theirs; the others are ordered by a hash of their id.
    split_of = {video: known[video] for video in videos if video in known}
    new = sorted(videos - split_of.keys(), key=lambda name: _hash(name, seed=seed))
    num_new = len(new)
    # A share above 0 gets at least one video.
    for name, share in shares.items():
        count = max(1, round(share * num_new)) if share and num_new else 0
        split_of.update(dict.fromkeys(new[:count], name))
        del new[:count]
    if not new and "train" not in split_of.values():
        raise InputError(
            f"--val and --test leave none of {pluralize(len(videos), 'video')} to train on; lower "
            "them, or annotate more videos"
        )
    # Videos that no share took are for training.
    sets: dict[str, list[dict[str, Any]]] = {name: [] for name in SPLITS}
    for record in records:
        sets[split_of.get(record[place], "train")].append(record)
    return sets


def _hash(video_id: str, *, seed: int) -> str:
    return hashlib.sha256(f"{seed} {video_id}".encode()).hexdigest()


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")
