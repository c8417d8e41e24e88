"""Findings about the texts of a set: length, repetition, answers without label."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, islice
from pathlib import Path

from alpro.commands.check_data.annotations import ReadSet
from alpro.commands.check_data.findings import Finding
from alpro.commands.check_data.sources import TextLimits
from alpro.errors import listed, pluralize
from alpro.tasks.question_answering.annotations import AnswerLabels

NUM_NAMED = 5  # ids that a finding names
TEXTS_PER_CALL = 10_000  # of the tokenizer
NUM_SPECIAL_TOKENS = 2  # [CLS] and [SEP]


class TokenCounter:
    """Counts the word pieces of texts.

    Raises:
        InputError: there is no tokenizer, or not the text encoder's.
    """

    def __init__(self, limits: TextLimits) -> None:
        # PyTorch comes with these.
        from alpro.datasets.tokenization import load_tokenizer
        from alpro.families.registry import load_family

        family = load_family(limits.family)
        self.tokenizer = load_tokenizer(
            limits.tokenizer_dir,
            vocab_size=family.vocab_size(limits.architecture),
            layout=family.tokenizer,
        )
        self.tokenizer.model_max_length = int(1e9)  # no warnings: nothing goes into a model here

    def lengths(self, texts: Iterable[str]) -> Iterator[tuple[str, int]]:
        """Each text with its number of word pieces, [CLS] and [SEP] among them."""
        left = iter(texts)
        while block := list(islice(left, TEXTS_PER_CALL)):
            encoded = self.tokenizer(
                block, return_attention_mask=False, return_token_type_ids=False
            )
            yield from zip(block, map(len, encoded["input_ids"]), strict=True)


def token_lengths(
    data: ReadSet, counter: TokenCounter, *, max_length: int
) -> tuple[Counter[int], list[Finding]]:
    """Histogram of text lengths in word pieces, and findings of cut or empty texts."""
    counts, findings = Counter[int](), []
    # Each distinct text is tokenized once.
    times = Counter(row.text for row in data.texts)
    for text, length in counter.lengths(times):
        counts[length] += times[text]
        if length > max_length:
            message = f"{length} word pieces, the last {length - max_length} cut off"
            findings.append(Finding("cut_text", text, message, str(data.source)))
        elif length <= NUM_SPECIAL_TOKENS:
            message = "the tokenizer leaves no word piece of it"
            findings.append(Finding("empty_text", repr(text), message, str(data.source)))
    return counts, findings


def repetitions(data: ReadSet) -> Iterator[Finding]:
    """Rows that occur more than once, and captions of several videos."""
    where = str(data.source)
    for (video_id, text, answer), count in Counter(data.texts).items():
        if count > 1:
            row = text if answer is None else f"{text} {answer}"
            yield Finding("repeated_row", video_id, f"{count:,} times: {row}", where)
    if data.source.rows == "questions":
        return  # the same question may well be asked of many videos
    for text, ids in _videos_of(data).items():
        if len(ids) > 1:
            noun = "images" if data.source.of_images else "videos"
            yield Finding("equal_text", text, f"{len(ids)} {noun}: {few(ids)}", where)


def _videos_of(data: ReadSet) -> Mapping[str, Sequence[str]]:
    videos: dict[str, dict[str, None]] = defaultdict(dict)
    for row in data.texts:
        videos[row.text][row.video_id] = None
    return {text: list(ids) for text, ids in videos.items()}


def shared_texts(sets: Sequence[ReadSet]) -> Iterator[Finding]:
    """Captions that sets of training and of evaluation have in common."""
    captions = [data for data in sets if data.source.rows != "questions"]
    for one, other in combinations(captions, 2):
        train, evaluation = sorted((one, other), key=lambda data: data.source.split != "train")
        if (train.source.split == "train") != (evaluation.source.split == "train"):
            theirs = {row.text for row in evaluation.texts}
            for text in dict.fromkeys(row.text for row in train.texts if row.text in theirs):
                yield Finding("shared_text", text, "", f"{train.source}, {evaluation.source}")


def unknown_answers(data: ReadSet, labels: AnswerLabels, *, path: Path) -> Iterator[Finding]:
    """Answers of a set of questions that the map has no label for."""
    answers = Counter(row.answer for row in data.texts if row.answer is not None)
    unknown = {
        answer: count for answer, count in answers.items() if labels.label_of(answer) is None
    }
    if answers and len(unknown) == len(answers):
        message = f"{path} has none of its {pluralize(len(answers), 'distinct answer')}"
        yield Finding("no_known_answer", str(data.source), message, str(data.source))
    for answer, count in sorted(unknown.items(), key=lambda item: -item[1]):
        yield Finding("unknown_answer", answer, pluralize(count, "question"), str(data.source))


def few(names: Sequence[str]) -> str:
    """The first names of a list."""
    return listed(names)
