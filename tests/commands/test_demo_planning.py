import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from alpro.commands.demo.noise import BACKGROUND_PHRASES
from alpro.commands.demo.planning import SPLITS, Pair, describe, plan_dataset
from alpro.commands.demo.questions import applicable_questions
from alpro.commands.demo.scenes import KINDS
from alpro.commands.demo.stills import plan_stills
from alpro.commands.demo.vocabulary import caption_words, vocabulary
from alpro.datasets.tokenization import load_tokenizer
from alpro.errors import InputError

ROOT = Path(__file__).parents[2]
DEFAULTS = {"pretrain": 900, "train": 600, "val": 25, "test": 50}


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return plan_dataset(num_pairs=DEFAULTS, seed=0)


def of_split(pairs: list[Pair], split: str) -> list[Pair]:
    return [pair for pair in pairs if pair.split == split]


def test_no_scene_is_shared_between_splits(pairs: list[Pair]) -> None:
    keys = {
        split: {clip.scene.key for pair in of_split(pairs, split) for clip in pair.clips}
        for split in SPLITS
    }
    for split in ("pretrain", "train"):
        assert not keys[split] & keys["test"]
        assert not keys[split] & keys["val"]
    assert not keys["val"] & keys["test"]


@pytest.mark.parametrize("split", ["val", "test"])
def test_an_evaluation_caption_describes_exactly_one_clip(pairs: list[Pair], split: str) -> None:
    clips = [clip for pair in of_split(pairs, split) for clip in pair.clips]
    captions = [caption for clip in clips for caption in clip.captions]
    assert len(captions) == len(clips) == 2 * DEFAULTS[split]
    assert len(set(captions)) == len(captions)
    assert len({clip.scene.key for clip in clips}) == len(clips)
    alone = {deed for clip in clips if clip.scene.kind == "single" for deed in clip.scene.deeds}
    others = {deed for clip in clips if clip.scene.kind != "single" for deed in clip.scene.deeds}
    assert not alone & others


@pytest.mark.parametrize("split", ["val", "test"])
def test_an_evaluation_clip_is_its_sibling_played_backwards(pairs: list[Pair], split: str) -> None:
    for pair in of_split(pairs, split)[::7]:
        first, second = pair.render()
        assert np.array_equal(first, second[::-1])
        assert pair.clips[1].scene == pair.clips[0].scene.mirrored()


@pytest.mark.parametrize("split", ["pretrain", "train"])
def test_training_siblings_show_the_same_things(pairs: list[Pair], split: str) -> None:
    swapped = [pair for pair in of_split(pairs, split) if pair.swapped]
    assert swapped
    assert len(swapped) < DEFAULTS[split]
    for pair in swapped:
        first, second = (clip.scene for clip in pair.clips)
        assert second == first.swapped()
    first_frames, second_frames = swapped[0].render()
    assert not np.array_equal(first_frames, second_frames[::-1])


def test_training_splits_have_different_clips(pairs: list[Pair]) -> None:
    first, other = (of_split(pairs, split)[:600] for split in ("pretrain", "train"))
    scenes = [[pair.clips[0].scene for pair in own] for own in (first, other)]
    assert sum(a == b for a, b in zip(*scenes, strict=True)) < 10


def test_only_pretraining_has_noisy_captions(pairs: list[Pair]) -> None:
    known = caption_words()
    said = {
        split: [c for pair in of_split(pairs, split) for clip in pair.clips for c in clip.captions]
        for split in SPLITS
    }
    for split in ("train", "val", "test"):
        assert {
            word for caption in said[split] for word in caption.replace(",", " ").split()
        } <= known
    assert len(said["pretrain"]) == 6 * DEFAULTS["pretrain"]
    nouns = [phrase.split()[-1] for phrase in BACKGROUND_PHRASES.values()]
    assert all(any(noun in caption for caption in said["pretrain"]) for noun in nouns)


def test_every_kind_of_scene_is_in_every_split(pairs: list[Pair]) -> None:
    for split in SPLITS:
        assert {pair.clips[0].scene.kind for pair in of_split(pairs, split)} == set(KINDS)


def test_the_plan_follows_from_the_seed(pairs: list[Pair]) -> None:
    small = {"pretrain": 5, "train": 5, "val": 25, "test": 50}
    assert of_split(plan_dataset(num_pairs=small, seed=0), "test") == of_split(pairs, "test")
    assert of_split(plan_dataset(num_pairs=small, seed=1), "test") != of_split(pairs, "test")


def test_the_test_set_is_the_one_that_figures_were_measured_with(pairs: list[Pair]) -> None:
    captions = [c for pair in of_split(pairs, "test") for clip in pair.clips for c in clip.captions]
    digest = hashlib.sha256("\n".join(captions).encode()).hexdigest()
    assert digest == "2c8fd7eb6395151bd7665f678f5ce1ad3cc298c6efd3c9e9a9fbdf3e9d894026"


def test_a_record_holds_the_start_and_end_of_things(pairs: list[Pair]) -> None:
    pair = of_split(pairs, "test")[0]
    first, second = describe(pair)
    assert first["things"][0]["start"] == second["things"][0]["end"]
    assert first["clip_name"] == pair.clips[0].name
    json.dumps(first)


def test_too_many_evaluation_scenes_are_refused() -> None:
    with pytest.raises(InputError, match="--num_test_pairs 1000"):
        plan_dataset(num_pairs={"pretrain": 1, "train": 1, "val": 1, "test": 1000}, seed=0)


def test_the_shipped_tokenizer_knows_every_word(pairs: list[Pair]) -> None:
    folder = ROOT / "ext/demo-tokenizer"
    assert (folder / "vocab.txt").read_text(encoding="utf-8").split() == vocabulary()
    config = json.loads((ROOT / "config_release/demo_model.json").read_text())
    tokenizer = load_tokenizer(folder, vocab_size=config["vocab_size"])
    captions = {caption for pair in pairs for clip in pair.clips for caption in clip.captions}
    captions |= {still.caption for still in plan_stills(num_images=500, seed=0)}
    records = [record for pair in pairs for record in describe(pair)]
    questions = {question.text for record in records for question in applicable_questions(record)}
    lengths = []
    for text in captions | questions:
        words = text.replace(",", " ,").replace("?", " ?").split()
        assert tokenizer.tokenize(text) == words
        lengths.append(len(words) + 2)
    for name in ("demo_prompter", "demo_pretrain", "demo_ret", "demo_qa"):
        options = json.loads((ROOT / f"config_release/{name}.json").read_text())
        assert max(lengths) <= options["max_txt_len"]
