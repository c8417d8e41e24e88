"""The annotation files of the demo dataset: name of each file -> its text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from alpro.commands.demo.planning import SPLITS, STREAMS
from alpro.commands.demo.questions import draw_questions
from alpro.commands.demo.stills import Still

Record = dict[str, Any]

FINETUNING_SPLITS = ("train", "val", "test")
NUM_SIBLING_WORDINGS = 1
"""Number of wordings in which siblings' captions are adjacent, see `_caption_rows`."""
NUM_QUESTIONS = {"train": 5, "val": None, "test": None}
"""Split -> questions per clip at most, None: no limit."""
QUESTION_STREAM = 3
"""Key of the questions' stream of random numbers."""
IMAGE_SUFFIX = ".jpg"
NUM_VAL_IMAGES = 60
"""Images to validate on, at most a tenth of all."""


def annotation_files(
    records: Sequence[Record], stills: Sequence[Still], *, seed: int
) -> dict[str, str]:
    """Return the text of each annotation file.

    Args:
        records: of the clips, as `describe` makes them.
        stills: the images.
        seed: of the selection of questions.
    """
    # Pretraining and validation images first, then the sets of each task.
    own = {split: [record for record in records if record["split"] == split] for split in SPLITS}
    num_val_images = min(NUM_VAL_IMAGES, len(stills) // 10)
    texts = {
        "scenes.jsonl": as_lines(records),
        "pretrain.jsonl": as_lines(_pretraining_rows(own["pretrain"])),
        "pretrain_val.jsonl": as_lines(_pretraining_rows(own["val"])),
        "pretrain_frames.json": as_json(_frame_rows(own["pretrain"])),
        "images.json": as_json(image_rows(stills[num_val_images:])),
        "images_val.json": as_json(image_rows(stills[:num_val_images])),
    }
    for split in FINETUNING_SPLITS:
        questions = list(_question_rows(own[split], split=split, seed=seed))
        texts[f"{split}.jsonl"] = as_lines(_caption_rows(own[split]))
        texts[f"{split}_qa.jsonl"] = as_lines(questions)
        if split == "train":
            answers = sorted({row["answer"] for row in questions})
            texts["ans2label.json"] = as_json({answer: i for i, answer in enumerate(answers)})
    return texts


def image_rows(stills: Iterable[Still]) -> list[Record]:
    """Annotation rows of images."""
    return [{"image": still.name + IMAGE_SUFFIX, "caption": still.caption} for still in stills]


def as_lines(rows: Iterable[Record]) -> str:
    """Return rows as JSONL."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def as_json(value: Any) -> str:
    """Return a value as JSON."""
    return json.dumps(value, indent=2) + "\n"


def _pretraining_rows(records: Sequence[Record]) -> Iterator[dict[str, str]]:
    for row in _caption_rows(records):
        yield {"text": row["caption"], "video_id": row["clip_name"]}


def _frame_rows(records: Sequence[Record]) -> list[Record]:
    """Caption the middle frame of each clip, where the things are seen but not what they do."""
    return [
        {
            "image_id": record["clip_name"],
            "caption": " and ".join(f"a {x['color']} {x['shape']}" for x in record["things"]),
        }
        for record in records
    ]


def _caption_rows(records: Sequence[Record]) -> Iterator[dict[str, str]]:
    """Order the captions of a split; ``shuffle_block_size: 2`` keeps two rows in one batch.

    In the first wordings siblings are adjacent: they are each other's negatives, and only time
    distinguishes them. In the other wordings they are not, so that the content is learned as well.
    With all siblings adjacent, the matching loss saw no other kind of negative and was useless for
    ranking (re-ranked R@1 40 against 60 by VTC alone; with a third of them 61 against 56).
    """
    num_wordings = len(records[0]["captions"]) if records else 0
    for wording in range(num_wordings):
        together = wording < NUM_SIBLING_WORDINGS
        for record in records if together else [*records[::2], *records[1::2]]:
            yield {"caption": record["captions"][wording], "clip_name": record["clip_name"]}


def _question_rows(records: Sequence[Record], *, split: str, seed: int) -> Iterator[dict[str, str]]:
    """Rows clip by clip, so that siblings are adjacent."""
    rng = np.random.default_rng([seed, STREAMS[split], QUESTION_STREAM])
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
