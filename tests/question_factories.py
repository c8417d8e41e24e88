"""Parts of question answering tests: questions, labels, models, an experiment."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from alpro.datasets.tokenization import Tokenizer, tokenize
from alpro.datasets.transforms.normalize import Normalize
from alpro.distributed.engine import Engine, SingleProcess
from alpro.evaluation.evaluation_set import EvaluationSet
from alpro.families.alpro.question_answering import AlproForQuestionAnswering
from alpro.modeling.bert import SplitBertEncoder
from alpro.tasks.question_answering.annotations import AnswerLabels, QuestionRow
from alpro.tasks.question_answering.batches import QaBatch
from alpro.tasks.question_answering.evaluation import QuestionAnsweringEvaluator
from tests.factories import (
    CPU,
    EMBED_DIM,
    MEAN,
    NUM_FRAMES,
    STD,
    TinyExperiment,
    make_encoders,
    make_evaluation_set,
    noise,
    spread_weights,
)

QUESTIONS = (  # question, answer type, possible answers
    ("what is it", "what", ("ball", "box")),
    ("who rolls", "who", ("red", "green", "blue")),
    ("how many fall", "how", ("one", "two")),
    ("which way", "which way", ("left", "right")),
)
ANSWERS = tuple(sorted(answer for *_, answers in QUESTIONS for answer in answers))
UNKNOWN_ANSWER = "nobody"  # an answer without label
LABELS = AnswerLabels(ANSWERS)


def questions_of(video_ids: Sequence[str]) -> list[QuestionRow]:
    """All questions about each video, in an order in which those of a video are not neighbours."""
    return [
        QuestionRow(question, video_id, answers[sum(map(ord, video_id)) % len(answers)], kind)
        for question, kind, answers in QUESTIONS
        for video_id in video_ids
    ]


def write_questions(path: Path, rows: Iterable[QuestionRow]) -> Path:
    """Write an annotation file in the original's format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
    return path


def make_answer_model(
    *,
    seed: int = 0,
    spread: float = 0.2,
    num_labels: int = len(ANSWERS) + 3,
    dropout: float = 0.0,
    num_frames: int = NUM_FRAMES,
) -> AlproForQuestionAnswering:
    """A tiny model with more logits than there are answers."""
    torch.manual_seed(seed)
    encoders = make_encoders(
        SplitBertEncoder, spread=spread, dropout=dropout, num_frames=num_frames
    )
    model = AlproForQuestionAnswering(*encoders, num_labels=num_labels, embed_dim=EMBED_DIM)
    return spread_weights(model, spread=spread)


def make_question_batch(
    tokenizer: Tokenizer, rows: Sequence[QuestionRow], *, num_clips: int = 1
) -> QaBatch:
    """A training batch of questions with noise for videos."""
    video_ids = list(dict.fromkeys(row.video_id for row in rows))
    ids, mask = tokenize(tokenizer, [row.question for row in rows], max_length=20)
    return QaBatch(
        frames=noise(video_ids, num_clips=num_clips),
        text_ids=ids,
        text_mask=mask,
        labels=torch.tensor([ANSWERS.index(row.answer) for row in rows]),
        video_of_question=torch.tensor([video_ids.index(row.video_id) for row in rows]),
        video_ids=video_ids,
        unreadable=[],
    )


def make_question_set(
    folder: Path, rows: Sequence[QuestionRow], **options: Any
) -> EvaluationSet[QuestionRow]:
    """Questions and fake videos in ``folder``; ``options`` as :func:`make_evaluation_set`'s."""
    return make_evaluation_set(write_questions(folder / "questions.jsonl", rows), rows, **options)


def make_answer_evaluator(
    model: AlproForQuestionAnswering,
    tokenizer: Tokenizer,
    *,
    engine: Engine | None = None,
    **changes: Any,
) -> QuestionAnsweringEvaluator:
    """An evaluator in fp32; ``changes`` are further arguments of its class."""
    engine = engine or SingleProcess(CPU, scale_loss=False)
    arguments: dict[str, Any] = {
        "labels": LABELS,
        "precision": "fp32",
        "question_chunk": 3,
        "clip_aggregation": "mean",
        "allow_missing_videos": False,
        **changes,
    }
    return QuestionAnsweringEvaluator(
        model,
        tokenize=lambda texts: tokenize(tokenizer, texts, max_length=20),
        normalize=Normalize(MEAN, STD).to(engine.device),
        engine=engine,
        **arguments,
    )


@dataclass
class QaExperiment(TinyExperiment):
    """The experiment with questions about its videos in place of captions.

    Of the questions about the last training video and the last test video, *who* has an answer
    without label.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        labels = {answer: label for label, answer in enumerate(ANSWERS)}
        self.values |= {
            "task": "tiny_qa",
            "ans2label_path": str(self.write("ans2label.json", labels)),
            "max_n_example_per_group": 2,
        }

    def write_annotations(self, path: Path, video_ids: Sequence[str]) -> None:
        """Write the annotation file of a split: several questions per video."""
        rows = questions_of(video_ids)
        if path.stem in ("train", "test"):
            last = max(n for n, row in enumerate(rows) if row.answer_type == "who")
            rows[last] = replace(rows[last], answer=UNKNOWN_ANSWER)
        write_questions(path, rows)
