from __future__ import annotations

from pathlib import Path

import pytest
import torch

from src.datasets.tokenization import load_tokenizer, tokenize
from src.errors import InputError
from tests.shared_data import shared_data

_VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "run", "##s"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "vocab.txt").write_text("\n".join(_VOCABULARY) + "\n")
    return tmp_path


def test_captions_are_lower_cased_padded_to_the_longest_and_cut(folder: Path) -> None:
    tokenizer = load_tokenizer(folder, vocab_size=9)
    ids, mask = tokenize(tokenizer, ["A dog runs", "dog", "a cat"], max_length=40)
    assert ids.tolist() == [[2, 5, 6, 7, 8, 3], [2, 6, 3, 0, 0, 0], [2, 5, 1, 3, 0, 0]]
    assert mask.tolist() == [[1] * 6, [1] * 3 + [0] * 3, [1] * 4 + [0] * 2]
    assert ids.dtype == mask.dtype == torch.int64
    ids, _ = tokenize(tokenizer, ["a dog runs", "dog"], max_length=4)
    assert ids.tolist() == [[2, 5, 6, 3], [2, 6, 3, 0]]


def test_what_is_missing_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match="has 9 tokens.*expects 30522"):
        load_tokenizer(folder, vocab_size=30522)
    with pytest.raises(InputError, match="nowhere not found"):
        load_tokenizer(folder / "nowhere", vocab_size=9)
    (folder / "vocab.txt").unlink()
    with pytest.raises(InputError, match="neither vocab.txt nor tokenizer.json"):
        load_tokenizer(folder, vocab_size=9)


def test_real_vocabulary(tmp_path: Path) -> None:
    shared = shared_data()
    if shared is None:
        pytest.skip("the optional ../shared data is not here")
    vocabulary = shared / "real" / "vocab" / "bert_base_uncased_vocab.txt"
    (tmp_path / "vocab.txt").write_bytes(vocabulary.read_bytes())
    tokenizer = load_tokenizer(tmp_path, vocab_size=30522)
    ids, _ = tokenize(tokenizer, ["Hello World!"], max_length=20)
    assert ids.tolist() == [[101, 7592, 2088, 999, 102]]
