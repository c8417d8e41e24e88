from __future__ import annotations

import sys
from collections import Counter

import pytest

from alpro.commands.nouns import count_tags, entities_of, load_tagger, tokens_of
from alpro.errors import InputError

pytest.importorskip("HanTa")


def entities(*captions: str) -> dict[str, int]:
    """Entities of captions, in their order."""
    return dict(entities_of(count_tags(Counter(captions).items())))


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("A man's T-shirt, 3 dogs!", ["a", "man", "'s", "t-shirt", ",", "3", "dogs", "!"]),
        ("they don’t see the girls’ café", ["they", "don't", "see", "the", "girls", "'", "café"]),
        ("mp4_file", ["mp", "4", "file"]),
        ("  ", []),
    ],
)
def test_captions_are_cut_into_words(caption: str, tokens: list[str]) -> None:
    assert tokens_of(caption) == tokens


def test_nouns_are_counted_and_sorted() -> None:
    found = entities(
        "a man is riding a horse on the beach",
        "a man sings in front of a building",
        "The old man walks his dog in London",
        "someone runs with a dog",
    )
    assert list(found.items()) == [
        *(("man", 3), ("dog", 2)),
        *(("beach", 1), ("building", 1), ("front", 1), ("horse", 1)),
    ]


def test_a_word_may_occur_twice_in_a_caption_and_a_caption_twice() -> None:
    counts = count_tags([("a cat looks at a cat", 3)])
    assert dict(entities_of(counts)) == {"cat": 6}


def test_capitals_do_not_matter() -> None:
    assert entities("Aerial View Of A Beach") == entities("aerial view of a beach")


def test_singular_and_plural_are_one_entity_named_as_most_often() -> None:
    assert entities("a man and two men", "the man") == {"man": 3}
    assert entities("a square on stripes", "a stripe on stripes") == {"stripes": 3, "square": 1}
    assert entities("children with pants") == {"children": 1, "pants": 1}


def test_a_word_that_is_mostly_a_verb_is_no_entity() -> None:
    assert entities("the play", "they play a game", "she can play", "we play") == {"game": 1}
    assert "doing" not in entities("what is a man doing?")


def test_signs_numbers_and_letters_are_no_entities() -> None:
    assert entities("a s d ! 12 3d #", "", "?!") == {}


def test_without_the_tagger_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "HanTa.HanoverTagger", None)
    load_tagger.cache_clear()
    with pytest.raises(InputError, match="pip install HanTa"):
        load_tagger()
