"""CLIP's byte-pair encoding from the vocabulary that ships with the repository."""

from __future__ import annotations

from alpro.datasets.tokenization import CLIP_BPE, load_tokenizer, tokenize
from tests.parity.clip_vip_evaluation import VOCAB_SIZE, VOCABULARY


def test_texts_stand_between_clips_own_marks_and_are_padded_by_the_latter() -> None:
    """Ids that OpenAI's published tokenizer gives: 320 "a", 786 "man", 530 "in"."""
    tokenizer = load_tokenizer(VOCABULARY, vocab_size=VOCAB_SIZE, layout=CLIP_BPE)
    ids, mask = tokenize(tokenizer, ["a man", "A", "a a a a"], max_length=5)
    assert ids.tolist() == [
        [49406, 320, 786, 49407, 49407],
        [49406, 320, 49407, 49407, 49407],
        [49406, 320, 320, 320, 49407],
    ]
    assert mask.tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
