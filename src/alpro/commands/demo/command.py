"""Render the demo dataset: ``alpro demo-data [--output data/demo]``.

Writes ``videos/*.mp4`` and ``images/*.jpg``, and in ``txt/``:

* for pretraining, with noisy captions: ``pretrain.jsonl`` (rows ``{"text", "video_id"}``),
  ``images.json`` (a list of ``{"image", "caption"}``), ``pretrain_frames.json`` (captions of the
  clips' middle frames, ``{"image_id", "caption"}``), and ``pretrain_val.jsonl``, the clips of the
  validation split with the captions they have there;
* for finetuning and evaluation: ``{train,val,test}.jsonl`` (rows ``{"caption", "clip_name"}``),
  ``{train,val,test}_qa.jsonl`` (rows ``{"question", "answer", "video_id", "answer_type"}``) and
  ``ans2label.json`` (the answers of ``train_qa``, numbered);
* ``scenes.jsonl`` (what happens in each clip).

``long/{val,test}/*.mp4`` are the clips of a split one after the other, to search in, and
``txt/long_{val,test}.jsonl`` says when each caption is true, and when of its clip backwards.

``manifest.json`` records the parameters. The same parameters give the same files; a second run
renders no clip again, an interrupted one is completed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alpro.commands.cli import (
    MAX_SEED,
    MAX_WORKERS,
    at_most,
    exit_code_of,
    not_negative,
    path_flag,
    progress,
)
from alpro.commands.demo.encoding import CODEC, JPEG_QUALITY, Item, encode_all, is_encoded
from alpro.commands.demo.joining import join_clips, long_videos, moment_rows
from alpro.commands.demo.planning import SPLITS, describe, plan_dataset
from alpro.commands.demo.stills import plan_stills
from alpro.commands.demo.texts import annotation_files, as_json, as_lines, image_rows
from alpro.commands.demo.trajectories import FPS, NUM_FRAMES, SIZE
from alpro.commands.demo.vocabulary import write_tokenizer
from alpro.errors import InputError, pluralize
from alpro.training.atomic_io import write_text
from alpro.training.writable import check_output_folder
from alpro.user_files import JsonError, read_json

DRAWING_VERSION = 2
"""Raised when the frames of an equal plan would look different."""
NUM_PAIRS = {"pretrain": 3000, "train": 2000, "val": 50, "test": 50}
NUM_IMAGES = 6000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    flags = _parser().parse_args(arguments)
    if flags.write_tokenizer:
        return exit_code_of(lambda: write_tokenizer(flags.write_tokenizer))
    return exit_code_of(
        lambda: make_demo_data(
            flags.output_dir,
            num_pairs={split: getattr(flags, f"num_{split}_pairs") for split in SPLITS},
            num_images=flags.num_images,
            seed=flags.seed,
            num_workers=flags.n_workers or os.cpu_count() or 1,
        ),
        can_resume=True,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alpro demo-data",
        description="Make a small dataset of short clips in which time matters.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--output",
        "--output_dir",
        dest="output_dir",
        type=path_flag,
        default=Path("data/demo"),
        metavar="DIR",
        help="folder for videos, images and texts",
    )
    for split in SPLITS:
        parser.add_argument(
            f"--num_{split}_pairs",
            type=not_negative,
            default=NUM_PAIRS[split],
            help="two clips each",
        )
    parser.add_argument(
        "--num_images", type=not_negative, default=NUM_IMAGES, help="still images for pretraining"
    )
    parser.add_argument("--seed", type=at_most(MAX_SEED), default=0, help="seed")
    parser.add_argument(
        "--n_workers", type=at_most(MAX_WORKERS), default=0, help="processes; 0: one per core"
    )
    parser.add_argument(
        "--write_tokenizer", type=path_flag, metavar="DIR", help="write the tokenizer, no clips"
    )
    return parser


def make_demo_data(
    output_dir: Path, *, num_pairs: dict[str, int], num_images: int, seed: int, num_workers: int
) -> None:
    """Make or complete the dataset in ``output_dir``.

    Args:
        output_dir: folder of the dataset; one with other parameters is replaced.
        num_pairs: split -> number of pairs of clips.
        num_images: number of still images.
        seed: everything random follows from it.
        num_workers: processes that draw and encode.

    Raises:
        InputError: the folder holds other files, or there are not enough distinct scenes.
    """
    check_output_folder(output_dir, named_by="--output")
    start = time.perf_counter()
    # The plan is cheap and deterministic; its hash identifies the dataset.
    pairs = plan_dataset(num_pairs=num_pairs, seed=seed)
    stills = plan_stills(num_images=num_images, seed=seed)
    records = [record for pair in pairs for record in describe(pair)]
    counts = {f"num_{split}_pairs": num_pairs[split] for split in SPLITS}
    counts["num_images"] = num_images
    manifest = _manifest([*records, *image_rows(stills)], counts=counts, seed=seed)
    # Other parameters replace the dataset, equal ones complete it.
    stored = _read_manifest(output_dir)
    if stored != manifest:
        _prepare_folder(output_dir, known=stored is not None)
    # Render what is missing; texts are written in any case.
    items: list[Item] = [*pairs, *stills]
    missing = [item for item in items if not is_encoded(item, folder=output_dir)]
    videos = long_videos(pairs)
    texts = annotation_files(records, stills, seed=seed)
    for split, rows in moment_rows(videos, records).items():
        texts[f"long_{split}.jsonl"] = as_lines(rows)
    num_texts = _write_texts(output_dir / "txt", texts)
    missing_videos = [name for name in videos if not _long_path(output_dir, name).exists()]
    made = f"{pluralize(len(records), 'clip')}, {pluralize(len(stills), 'image')}"
    if stored == manifest and not missing and not missing_videos:
        todo = f"{pluralize(num_texts, 'text file')} written" if num_texts else "nothing to do"
        print(f"{output_dir}: already complete ({made}), {todo}")
        return
    _write_text(output_dir / "manifest.json", as_json(manifest))
    encoded = encode_all(missing, folder=output_dir, num_workers=num_workers)
    for _ in progress(encoded, len(missing), "demo clips and images", "item"):
        pass
    for name in missing_videos:
        clips = [output_dir / f"videos/{clip}.mp4" for clip in videos[name]]
        join_clips(clips, _long_path(output_dir, name))
    seconds = time.perf_counter() - start
    share = f"{len(missing):,} of {len(items):,} pairs and images rendered"
    print(f"{output_dir}: {made}; {share} in {seconds:.1f} s")


def _long_path(output_dir: Path, name: str) -> Path:
    return output_dir / "long" / f"{name}.mp4"


def _manifest(plan: list[dict[str, Any]], *, counts: dict[str, int], seed: int) -> dict[str, Any]:
    lines = "\n".join(json.dumps(record) for record in plan)
    return {
        **counts,
        "seed": seed,
        "size": SIZE,
        "num_frames": NUM_FRAMES,
        "fps": FPS,
        "codec": CODEC,
        "jpeg_quality": JPEG_QUALITY,
        "drawing_version": DRAWING_VERSION,
        "plan_sha256": hashlib.sha256(lines.encode()).hexdigest(),
    }


def _read_manifest(output_dir: Path) -> dict[str, Any] | None:
    path = output_dir / "manifest.json"
    if not path.exists():
        return None
    try:
        return read_json(path)
    except JsonError as error:
        raise InputError(f"{path} is not JSON ({error}): delete {output_dir}") from error


def _prepare_folder(output_dir: Path, *, known: bool) -> None:
    """Make the folders; remove what was drawn with other parameters."""
    videos, images = output_dir / "videos", output_dir / "images"
    if not known and output_dir.exists() and any(output_dir.iterdir()):
        raise InputError(
            f"--output_dir {output_dir} is not empty and holds no manifest.json of this command:"
            " choose another folder, or empty it"
        )
    clips = [path for split in SPLITS for path in videos.glob(f"{split}?????[ab].*")]
    long = [path for split in SPLITS for path in (output_dir / "long" / split).glob("*.mp4")]
    for path in [*clips, *long, *images.glob("image?????.*")]:
        path.unlink()
    for folder in (videos, images):
        folder.mkdir(parents=True, exist_ok=True)


def _write_texts(folder: Path, texts: dict[str, str]) -> int:
    """Write the files that are missing or differ; return their number."""
    folder.mkdir(parents=True, exist_ok=True)
    return sum(_write_text(folder / name, text) for name, text in texts.items())


def _write_text(path: Path, text: str) -> bool:
    """Write a file unless it has this content; return whether it was written."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    write_text(path, text)
    return True
