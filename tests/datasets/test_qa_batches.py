from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from alpro.datasets.shared_rows import pack_rows
from alpro.datasets.storage import VideoFolder
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.datasets.video_datasets import (
    FrameReader,
    TrainingSample,
    TrainingVideos,
    UnreadableVideo,
)
from alpro.tasks.question_answering.annotations import AnswerLabels, QuestionRow
from alpro.tasks.question_answering.batches import (
    LabelledQuestion,
    QaCollate,
    QuestionGroup,
    group_questions,
    label_questions,
)
from tests.factories import VOCABULARY, FakeDecoder, make_tokenizer, write_videos

_LABELS = AnswerLabels(("ball", "box"))


def _row(number: int, video_id: str, answer: str = "ball") -> QuestionRow:
    return QuestionRow(f"question {number}", video_id, answer, "what")


def test_questions_with_unknown_answers_are_left_out_and_counted() -> None:
    rows = [_row(0, "v0", "box"), _row(1, "v0", "cow"), _row(2, "v1"), _row(3, "v2", "Box")]
    labelled = label_questions(pack_rows(rows, QuestionRow), _LABELS)
    assert labelled.rows == [rows[0], rows[2]]
    assert labelled.labels == [1, 0]
    assert labelled.num_left_out == 2


def test_questions_are_grouped_by_video_in_order_of_first_appearance() -> None:
    rows = [_row(i, video) for i, video in enumerate(["b", "a", "b", "c", "b", "a", "b", "b"])]
    labelled = label_questions(pack_rows(rows, QuestionRow), _LABELS)
    groups = group_questions(labelled, max_group=2)
    named = [(group.video_id, [one.question[-1] for one in group.questions]) for group in groups]
    assert named == [
        *[("b", ["0", "2"]), ("b", ["4", "6"]), ("b", ["7"])],
        *[("a", ["1", "5"]), ("c", ["3"])],
    ]


@pytest.mark.parametrize("max_group", [1, 2, 3, 4, 100])
def test_no_question_is_lost_in_groups(max_group: int) -> None:
    rows = [_row(i, f"v{i * i % 7}", _LABELS.texts[i % 2]) for i in range(23)]
    labelled = label_questions(pack_rows(rows, QuestionRow), _LABELS)
    groups = group_questions(labelled, max_group=max_group)
    found = [(group.video_id, one) for group in groups for one in group.questions]
    expected = [(row.video_id, LabelledQuestion(row.question, i % 2)) for i, row in enumerate(rows)]
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert all(1 <= len(group.questions) <= max_group for group in groups)


def test_groups_hold_at_least_one_question() -> None:
    with pytest.raises(ValueError, match="no groups of 0 questions"):
        group_questions(label_questions(pack_rows([], QuestionRow), _LABELS), max_group=0)


def test_questions_of_a_batch_point_at_their_videos(tmp_path: Path) -> None:
    lost = UnreadableVideo("v9", "broken")
    three = QuestionGroup(
        "v0",
        (LabelledQuestion("red", 4), LabelledQuestion("a blue box", 0), LabelledQuestion("a", 4)),
    )
    one = QuestionGroup("v1", (LabelledQuestion("left and right", 2),))
    samples = [
        TrainingSample(np.full((1, 2, 3, 8, 8), 7, np.uint8), three),
        TrainingSample(np.full((1, 2, 3, 8, 8), 9, np.uint8), one, (lost,)),
        TrainingSample(np.full((1, 2, 3, 8, 8), 5, np.uint8), three),
    ]
    collate = QaCollate(make_tokenizer(tmp_path), max_length=4)
    batch = pickle.loads(pickle.dumps(collate))(samples).to("cpu")
    assert batch.frames.shape == (3, 1, 2, 3, 8, 8)
    assert batch.frames.dtype == torch.uint8
    assert batch.frames[:, 0, 0, 0, 0, 0].tolist() == [7, 9, 5]
    assert batch.video_of_question.tolist() == [0, 0, 0, 1, 2, 2, 2]
    assert batch.labels.tolist() == [4, 0, 4, 2, 4, 0, 4]
    assert (batch.labels.dtype, batch.video_of_question.dtype) == (torch.int64, torch.int64)
    words = [[VOCABULARY[token] for token in row] for row in batch.text_ids.tolist()]
    assert words[1] == ["[CLS]", "a", "blue", "[SEP]"]  # cut at max_length
    assert words[3] == ["[CLS]", "left", "and", "[SEP]"]
    assert words[6] == ["[CLS]", "a", "[SEP]", "[PAD]"]
    assert batch.text_mask.sum(dim=1).tolist() == [3, 4, 3, 4, 3, 4, 3]
    assert batch.video_ids == ["v0", "v1", "v0"]
    assert batch.unreadable == [lost]


def test_an_unreadable_video_is_replaced_with_its_questions(tmp_path: Path) -> None:
    videos = write_videos(tmp_path / "videos", ["v0", "v1"], broken=["v0"])
    rows = pack_rows([_row(0, "v0"), _row(1, "v1"), _row(2, "v1")], QuestionRow)
    groups = group_questions(label_questions(rows, _LABELS), max_group=2)
    reader = FrameReader(
        VideoFolder(videos), FakeDecoder(), 2, "uniform", preprocessing=PixelPreprocessing(size=8)
    )
    sample = TrainingVideos(groups, reader, seed=0, max_attempts=50)[0, 0]
    assert sample.item == groups[1]
    assert set(sample.unreadable) == {UnreadableVideo("v0", "made to be unreadable")}
