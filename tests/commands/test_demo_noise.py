import numpy as np
import pytest

from alpro.commands.demo.noise import (
    BACKGROUND_PHRASES,
    BACKGROUND_SHARE,
    DROPPED_SHARE,
    MISTAKEN_SHARE,
    VIDEO_WRAPPERS,
    WRAPPED_SHARE,
    web_captions,
)
from alpro.commands.demo.scenes import BACKGROUNDS

NUM_CLIPS = 3000
WORDS = [f"w{number}" for number in range(6)]


@pytest.fixture(scope="module")
def noisy() -> list[str]:
    """One caption per clip, whose words carry the clip's number."""
    captions = [[" ".join(f"{word}_{clip}" for word in WORDS)] for clip in range(NUM_CLIPS)]
    told = web_captions(
        captions,
        backgrounds=["dotted"] * NUM_CLIPS,
        wrappers=["before {}", "{} after"],
        rng=np.random.default_rng(0),
    )
    return [caption for (caption,) in told]


def numbers_in(caption: str) -> set[int]:
    """Of which clips a caption tells."""
    return {int(word.partition("_")[2]) for word in caption.split() if "_" in word}


def test_some_captions_describe_another_clip(noisy: list[str]) -> None:
    told = [numbers_in(caption) for caption in noisy]
    assert all(len(each) == 1 for each in told)
    mistaken = np.mean([each != {clip} for clip, each in enumerate(told)])
    assert mistaken == pytest.approx(MISTAKEN_SHARE, abs=0.015)


def test_words_are_missing_and_the_others_keep_their_order(noisy: list[str]) -> None:
    kept = [[word for word in caption.split() if "_" in word] for caption in noisy]
    assert all(words == sorted(words) for words in kept)
    share = np.mean([len(words) / len(WORDS) for words in kept])
    assert share == pytest.approx(1 - DROPPED_SHARE, abs=0.01)


def test_backgrounds_are_named_by_one_noun_each(noisy: list[str]) -> None:
    assert set(BACKGROUND_PHRASES) == set(BACKGROUNDS)
    nouns = [phrase.split()[-1] for phrase in BACKGROUND_PHRASES.values()]
    assert len(set(nouns)) == len(nouns)
    share = np.mean(["grass" in caption.split() for caption in noisy])
    assert share == pytest.approx(BACKGROUND_SHARE * (1 - DROPPED_SHARE), abs=0.03)


def test_some_captions_get_filler_words(noisy: list[str]) -> None:
    before = [caption.startswith("before ") for caption in noisy]
    after = [caption.endswith(" after") for caption in noisy]
    assert np.mean(before) == pytest.approx(WRAPPED_SHARE / 2, abs=0.02)
    assert np.mean(after) == pytest.approx(WRAPPED_SHARE / 2, abs=0.02)
    assert all(wrapper.count("{}") == 1 for wrapper in VIDEO_WRAPPERS)


def test_a_caption_is_never_empty() -> None:
    told = web_captions(
        [["word"]] * 200,
        backgrounds=["plain"] * 200,
        wrappers=["{}"],
        rng=np.random.default_rng(1),
    )
    assert all(caption.strip() for (caption,) in told)


def test_a_single_clip_keeps_its_own_caption() -> None:
    ((caption,),) = web_captions(
        [["a_0 b_0 c_0 d_0"]],
        backgrounds=["plain"],
        wrappers=["{}"],
        rng=np.random.default_rng(2),
    )
    assert numbers_in(caption) == {0}
