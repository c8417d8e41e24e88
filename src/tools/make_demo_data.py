"""Make the embedded dataset: ``python -m src.tools.make_demo_data [--output_dir data/demo]``.

Writes ``videos/*.mp4``, ``txt/{train,val,test}.jsonl`` (rows ``{"caption", "clip_name"}``),
``txt/{train,val,test}_qa.jsonl`` (rows ``{"question", "answer", "video_id", "answer_type"}``),
``txt/ans2label.json`` (the answers of ``train_qa``, numbered), ``txt/scenes.jsonl`` (what happens
in each clip) and ``manifest.json``. The same parameters give the same files; a second run makes no
clip again, an interrupted one is completed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from tqdm import tqdm

from src.errors import USER_ERROR_EXIT_CODE, InputError
from src.tools.demo.planning import SPLITS, Clip, Pair, describe, plan_dataset
from src.tools.demo.questions import draw_questions
from src.tools.demo.staging import FPS, NUM_FRAMES, SIZE
from src.tools.demo.vocabulary import write_tokenizer

DRAWING_VERSION = 1
"""Raised when the frames of an equal plan would look different."""
CODEC = {"crf": "20", "preset": "veryfast", "threads": "1", "bf": "0", "mbtree": "0"}
"""Looking ahead (``bf``, ``mbtree``) made x264 write different bytes from equal frames."""
PAIRS_PER_JOB = 16
LOGFILE_REDRAW_SECONDS = 5.0  # of a progress bar that is not on a terminal
NUM_SIBLING_WORDINGS = 1
"""Wordings of which siblings' captions stand together, see `_caption_rows`."""
NUM_QUESTIONS = {"train": 5, "val": None, "test": None}
"""Split -> questions per clip at most, None: no limit."""
QUESTION_STREAM = 3
"""Keeps the random numbers of the questions apart from those of the plan."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    flags = _parser().parse_args(arguments)
    if flags.write_tokenizer:
        write_tokenizer(flags.write_tokenizer)
        return 0
    try:
        make_demo_data(
            flags.output_dir,
            num_pairs={split: getattr(flags, f"num_{split}_pairs") for split in SPLITS},
            seed=flags.seed,
            num_workers=flags.n_workers or os.cpu_count() or 1,
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR_EXIT_CODE
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m src.tools.make_demo_data",
        description="Make a small dataset of short clips in which time matters.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--output_dir", type=Path, default=Path("data/demo"))
    parser.add_argument("--num_train_pairs", type=_count, default=3000, help="two clips each")
    parser.add_argument("--num_val_pairs", type=_count, default=50, help="two clips each")
    parser.add_argument("--num_test_pairs", type=_count, default=50, help="two clips each")
    parser.add_argument("--seed", type=_count, default=0)
    parser.add_argument("--n_workers", type=_count, default=0, help="processes; 0: one per core")
    parser.add_argument(
        "--write_tokenizer", type=Path, metavar="DIR", help="write the tokenizer, no clips"
    )
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def make_demo_data(
    output_dir: Path, *, num_pairs: dict[str, int], seed: int, num_workers: int
) -> None:
    """Make or complete the dataset in ``output_dir``.

    Args:
        output_dir: folder of the dataset; one with other parameters is replaced.
        num_pairs: split -> number of pairs of clips.
        seed: everything random follows from it.
        num_workers: processes that draw and encode.

    Raises:
        InputError: the folder holds something else, or there are not enough different scenes.
    """
    start = time.perf_counter()
    pairs = plan_dataset(num_pairs=num_pairs, seed=seed)
    records = [record for pair in pairs for record in describe(pair)]
    manifest = _manifest(records, num_pairs=num_pairs, seed=seed)
    videos = output_dir / "videos"
    stored = _read_manifest(output_dir)
    if stored != manifest:
        _prepare_folder(output_dir, known=stored is not None)
    missing = [pair for pair in pairs if not all(_path(videos, c).exists() for c in pair.clips)]
    num_texts = _write_texts(output_dir / "txt", records, seed=seed)
    if stored == manifest and not missing:
        todo = f"{num_texts} text files written" if num_texts else "nothing to do"
        print(f"{output_dir}: complete already ({len(records)} clips), {todo}")
        return
    _write_text(output_dir / "manifest.json", _as_json(manifest))
    for _ in tqdm(
        _encode_all(missing, videos, num_workers=num_workers),
        total=len(missing),
        desc="demo clips",
        unit="pair",
        mininterval=0.1 if sys.stderr.isatty() else LOGFILE_REDRAW_SECONDS,
    ):
        pass
    seconds = time.perf_counter() - start
    print(f"{output_dir}: {2 * len(missing)} of {len(records)} clips made in {seconds:.1f} s")


def _manifest(
    records: list[dict[str, Any]], *, num_pairs: dict[str, int], seed: int
) -> dict[str, Any]:
    plan = "\n".join(json.dumps(record) for record in records)
    return {
        **{f"num_{split}_pairs": num_pairs[split] for split in SPLITS},
        "seed": seed,
        "size": SIZE,
        "num_frames": NUM_FRAMES,
        "fps": FPS,
        "codec": CODEC,
        "drawing_version": DRAWING_VERSION,
        "plan_sha256": hashlib.sha256(plan.encode()).hexdigest(),
    }


def _read_manifest(output_dir: Path) -> dict[str, Any] | None:
    try:
        return json.loads((output_dir / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{output_dir / 'manifest.json'} is not JSON ({error}): delete {output_dir}"
        ) from error


def _prepare_folder(output_dir: Path, *, known: bool) -> None:
    """Make the folders; remove the clips of a dataset that was made with other parameters."""
    videos = output_dir / "videos"
    if not known and output_dir.exists() and any(output_dir.iterdir()):
        raise InputError(
            f"--output_dir {output_dir} is not empty and holds no manifest.json of this command:"
            " choose another folder or empty it"
        )
    for split in SPLITS:
        for path in videos.glob(f"{split}?????[ab].*"):
            path.unlink()
    videos.mkdir(parents=True, exist_ok=True)


def _write_texts(folder: Path, records: list[dict[str, Any]], *, seed: int) -> int:
    """Write what is not there yet; return the number of files."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"scenes.jsonl": _as_lines(records)}
    for split in SPLITS:
        own = [record for record in records if record["split"] == split]
        questions = list(_question_rows(own, split=split, seed=seed))
        texts[f"{split}.jsonl"] = _as_lines(_caption_rows(own))
        texts[f"{split}_qa.jsonl"] = _as_lines(questions)
        if split == "train":
            answers = sorted({row["answer"] for row in questions})
            texts["ans2label.json"] = _as_json({answer: i for i, answer in enumerate(answers)})
    return sum(_write_text(folder / name, text) for name, text in texts.items())


def _question_rows(
    records: list[dict[str, Any]], *, split: str, seed: int
) -> Iterator[dict[str, str]]:
    """Clip by clip, so that siblings stand together."""
    rng = np.random.default_rng([seed, SPLITS.index(split), QUESTION_STREAM])
    for siblings in zip(records[::2], records[1::2], strict=True):
        drawn = draw_questions(siblings, num_questions=NUM_QUESTIONS[split], rng=rng)
        for record, questions in zip(siblings, drawn, strict=True):
            for question in questions:
                yield {
                    "question": question.text,
                    "answer": question.answer,
                    "video_id": record["clip_name"],
                    "answer_type": question.answer_type,
                }


def _caption_rows(records: list[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """Order the captions of a split for ``shuffle_block: 2``, which keeps two rows in one batch.

    In the first wordings siblings stand together: they are each other's negatives, and only time
    tells them apart. In the other wordings they do not, so that what is shown is learnt as well.
    With all siblings together, matching loss never met another kind of negative and was of no use
    for ranking (re-ranked R@1 40 against 60 by VTC alone; with a third of them 61 against 56).
    """
    num_wordings = len(records[0]["captions"]) if records else 0
    for wording in range(num_wordings):
        together = wording < NUM_SIBLING_WORDINGS
        for record in records if together else [*records[::2], *records[1::2]]:
            yield {"caption": record["captions"][wording], "clip_name": record["clip_name"]}


def _as_lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _as_json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"


def _write_text(path: Path, text: str) -> bool:
    """Write a file that is not as it should be; return whether it was not."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.write_text(text, encoding="utf-8")
    return True


def _path(videos: Path, clip: Clip) -> Path:
    return videos / f"{clip.name}.mp4"


def _encode_all(pairs: list[Pair], videos: Path, *, num_workers: int) -> Iterator[None]:
    encode = partial(_encode_pair, videos=videos)
    if num_workers == 1 or len(pairs) <= PAIRS_PER_JOB:
        yield from map(encode, pairs)
        return
    with ProcessPoolExecutor(num_workers) as pool:
        yield from pool.map(encode, pairs, chunksize=PAIRS_PER_JOB)


def _encode_pair(pair: Pair, *, videos: Path) -> None:
    for clip, frames in zip(pair.clips, pair.render(), strict=True):
        encode_video(frames, path=_path(videos, clip))


def encode_video(frames: np.ndarray, *, path: Path) -> None:
    """Write uint8 RGB frames (T, S, S, 3) as h264; a file under ``path`` is complete."""
    partial_path = path.with_suffix(".part")
    with av.open(str(partial_path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options=CODEC)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    partial_path.replace(path)


if __name__ == "__main__":
    sys.exit(main())
