"""CLIP's byte-pair encoding from the vocabulary that ships with the repository."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from alpro.datasets.tokenization import CLIP_BPE, load_tokenizer, tokenize
from tests.shared_data import shared_data

_SHARED = shared_data()
FOLDER = Path(__file__).parents[2] / "ext/clip-bpe"
VOCAB_SIZE = 49408


def test_texts_stand_between_clips_own_marks_and_are_padded_by_the_latter() -> None:
    """Ids that OpenAI's published tokenizer gives: 320 "a", 786 "man", 530 "in"."""
    tokenizer = load_tokenizer(FOLDER, vocab_size=VOCAB_SIZE, layout=CLIP_BPE)
    ids, mask = tokenize(tokenizer, ["a man", "A", "a a a a"], max_length=5)
    assert ids.tolist() == [
        [49406, 320, 786, 49407, 49407],
        [49406, 320, 49407, 49407, 49407],
        [49406, 320, 320, 320, 49407],
    ]
    assert mask.tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]


@pytest.mark.skipif(_SHARED is None, reason="the golden numbers are absent")
def test_token_ids_agree_with_clip_vip() -> None:
    assert _SHARED is not None
    case = _SHARED / "golden" / "clipvip_eval_a"
    facts = json.loads(case.with_suffix(".json").read_text())
    with np.load(case.with_suffix(".npz")) as arrays:
        expected = arrays["token_ids"], arrays["token_mask"]
    tokenizer = load_tokenizer(FOLDER, vocab_size=VOCAB_SIZE, layout=CLIP_BPE)
    ids, mask = tokenize(tokenizer, facts["sentences"], max_length=facts["max_txt_len"])
    assert np.array_equal(ids, expected[0])
    assert np.array_equal(mask, expected[1])
