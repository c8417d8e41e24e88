"""Nouns of captions by HanTa, a part-of-speech tagger that ships its model."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Any

from alpro.errors import InputError
from alpro.installation import AbsentPackageError, import_optional

MODEL = "morphmodel_en.pgz"
"""English model, a part of the package."""
NOUN_TAGS = ("NN0", "NN1", "NN2")
"""Common nouns (without number, singular, plural) in the tag set of the British National Corpus.
Names (NP0) are none."""
GERUND_TAGS = ("VBG", "VDG", "VHG", "VVG")
MIN_LETTERS = 2
NUM_REMEMBERED_WORDS = 1 << 17
"""Analysing a word that is not in the model's list takes some 0.2 ms."""

_TOKENS = re.compile(
    r"'s\b"  # its own token: the noun is what stands before it
    r"|[^\W\d_]+(?:-[^\W\d_]+)*(?:'(?!s\b)[^\W\d_]+)?"  # a word: "t-shirt", "don't"
    r"|\d+|[^\w\s]"
)
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")

TagCounts = Counter[tuple[str, str]]
"""(Word, tag) -> how often the word is tagged so."""


def count_tags(captions: Iterable[tuple[str, int]]) -> TagCounts:
    """Count the lower-case words of captions by their part of speech in context.

    Capitals are ignored: many captions are written as titles.

    Args:
        captions: each with its weight.
    """
    tagger, counts = load_tagger(), TagCounts()
    for caption, times in captions:
        words = tokens_of(caption)
        tags = tagger.tag_sent(words, taglevel=0, casesensitive=False)
        for key in zip(words, tags, strict=True):
            counts[key] += times
    return counts


def tokens_of(caption: str) -> list[str]:
    """The words and signs of a caption, in lower case."""
    return _TOKENS.findall(caption.lower().replace("’", "'"))


def entities_of(counts: Mapping[tuple[str, str], int]) -> list[tuple[str, int]]:
    """Nouns with how often they occur, the most frequent first, equal ones by name.

    A noun is a word that is tagged as one in most of its occurrences: "moves" is none if it is
    mostly a verb. Singular and plural are one entity, named by the more frequent form: prompts of
    "man" and "men" would share the probability of the same appearance, and names should occur in
    captions as they are ("stripes", "pants").
    """
    # Tags of each word over all captions.
    tags_of: dict[str, Counter[str]] = defaultdict(Counter)
    for (word, tag), count in counts.items():
        tags_of[word][tag] += count
    # Words that are mostly nouns, grouped by their singular.
    forms: dict[str, Counter[str]] = defaultdict(Counter)
    for word, tags in tags_of.items():
        nouns = Counter({tag: tags[tag] for tag in NOUN_TAGS if tag in tags})
        if 2 * nouns.total() > tags.total() and _may_be_thing(word):
            forms[_lemma(word, max(nouns, key=nouns.__getitem__))][word] = nouns.total()
    # The more frequent form names the entity.
    named = [(min(own, key=lambda form: (-own[form], form)), own.total()) for own in forms.values()]
    return sorted(named, key=lambda entity: (-entity[1], entity[0]))


def _may_be_thing(word: str) -> bool:
    """Whether a word can be a noun: gerunds on their own are excluded.

    In "what is a man doing?" the gerund is tagged as a noun; "building" is a noun on its own.
    """
    if len(word) < MIN_LETTERS or not _WORD.fullmatch(word):
        return False
    return not word.endswith("ing") or _tag_alone(word) not in GERUND_TAGS


def _tag_alone(word: str) -> str:
    """The most likely tag of a word without others around it."""
    return load_tagger().tag_word(word, casesensitive=False)[0][0]


def _lemma(word: str, tag: str) -> str:
    """The singular of a noun."""
    return load_tagger().analyze(word, pos=tag, casesensitive=False)[0].lower()


@cache
def load_tagger() -> Any:
    """The tagger of this process.

    Raises:
        InputError: if HanTa is not installed.
    """
    try:
        hanta = import_optional("HanTa.HanoverTagger")
    except AbsentPackageError as error:
        raise InputError(f"extracting nouns needs HanTa; {error}: `pip install HanTa`") from error
    tagger = hanta.HanoverTagger(MODEL)
    tagger.analyze_forward = lru_cache(NUM_REMEMBERED_WORDS)(tagger.analyze_forward)
    return tagger
