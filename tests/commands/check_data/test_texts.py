"""What is wrong with texts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from alpro.commands.check_data.annotations import AnnotatedText, ReadSet
from alpro.commands.check_data.findings import Finding
from alpro.commands.check_data.sources import CheckedSet, Split, TextLimits
from alpro.commands.check_data.texts import (
    TokenCounter,
    repetitions,
    shared_texts,
    token_lengths,
    unknown_answers,
)
from alpro.families.alpro.config import TextEncoderConfig
from alpro.tasks.question_answering.annotations import AnswerLabels
from tests.factories import VOCABULARY, write_vocabulary


def set_of(*texts: tuple[str, ...], split: Split = "train", questions: bool = False) -> ReadSet:
    rows = "questions" if questions else "captions"
    source = CheckedSet(split, "set", split, Path("a.jsonl"), rows, Path("videos"))  # type: ignore[arg-type]
    return ReadSet(source, [AnnotatedText(*text) for text in texts], 0, 0)


def told(findings: list[Finding]) -> list[tuple[str, str, str]]:
    return [(finding.kind, finding.subject, finding.message) for finding in findings]


def test_word_pieces_are_counted_with_the_special_ones(tmp_path: Path) -> None:
    limits = TextLimits(
        tokenizer_dir=write_vocabulary(tmp_path),
        family="alpro",
        architecture={"model_config": TextEncoderConfig(vocab_size=len(VOCABULARY))},
        max_length=5,
    )
    data = set_of(("v0", "a red ball"), ("v1", "a red ball"), ("v2", "a red ball falls"))
    data.texts.append(AnnotatedText("v3", "\u200b"))  # type: ignore[attr-defined]
    counts, findings = token_lengths(data, TokenCounter(limits), max_length=5)
    assert counts == Counter({5: 2, 6: 1, 2: 1})
    assert told(findings) == [
        ("cut_text", "a red ball falls", "6 word pieces, the last 1 cut off"),
        ("empty_text", repr("\u200b"), "the tokenizer leaves no word piece of it"),
    ]


def test_repeated_rows_and_captions_of_several_videos_are_reported() -> None:
    data = set_of(("v0", "a dog"), ("v0", "a dog"), ("v1", "a dog"), ("v1", "a cat"))
    assert told(list(repetitions(data))) == [
        ("repeated_row", "v0", "2 times: a dog"),
        ("equal_text", "a dog", "2 videos: v0, v1"),
    ]


def test_equal_questions_of_several_videos_are_allowed() -> None:
    data = set_of(("v0", "who", "a"), ("v1", "who", "a"), ("v0", "who", "b"), questions=True)
    assert list(repetitions(data)) == []


def test_only_captions_of_training_and_evaluation_count_as_shared() -> None:
    train = set_of(("v0", "a dog"), ("v1", "a cat"))
    val = set_of(("v2", "a dog"), ("v3", "a bird"), split="val")
    test = set_of(("v4", "a bird"), split="test")
    (finding,) = shared_texts([val, test, train])
    assert (finding.subject, finding.where) == ("a dog", "set (train), set (val)")


def test_answers_without_label_are_reported_most_frequent_first() -> None:
    rows = [("v", "q", answer) for answer in ("dog", "cat", "owl", "owl")]
    labels, path = AnswerLabels(("dog",)), Path("labels.json")
    found = unknown_answers(set_of(*rows, questions=True), labels, path=path)
    assert told(list(found)) == [
        ("unknown_answer", "owl", "2 questions"),
        ("unknown_answer", "cat", "1 question"),
    ]
    none = set_of(*rows[1:], questions=True)
    kinds = [finding.kind for finding in unknown_answers(none, labels, path=path)]
    assert kinds == ["no_known_answer", "unknown_answer", "unknown_answer"]
