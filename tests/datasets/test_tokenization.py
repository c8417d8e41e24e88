from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from alpro.datasets.tokenization import load_tokenizer, tokenize
from alpro.errors import InputError
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


def test_missing_tokenizer_files_are_named(folder: Path) -> None:
    with pytest.raises(InputError, match="has 9 tokens.*expects 30522"):
        load_tokenizer(folder, vocab_size=30522)
    with pytest.raises(InputError, match="nowhere not found"):
        load_tokenizer(folder / "nowhere", vocab_size=9)
    (folder / "vocab.txt").unlink()
    with pytest.raises(InputError, match="neither vocab.txt nor tokenizer.json"):
        load_tokenizer(folder, vocab_size=9)


_LINES = "".join(f"{token}\n" for token in _VOCABULARY)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("vocab.txt", _LINES.encode() + b"caf\xe9\n", r"vocab\.txt: not UTF-8 text.*convert"),
        ("vocab.txt", _LINES.encode("utf-16"), r"vocab\.txt: not UTF-8 text"),
        ("vocab.txt", b"\xef\xbb\xbf" + _LINES.encode(), "begins with a byte-order mark"),
        ("vocab.txt", _LINES + "dog\n", r"vocab\.txt: token 'dog' is in the lines 7 and 10"),
        ("tokenizer.json", "{", r"tokenizer\.json, line 1: Expecting property name"),
        ("tokenizer.json", "{}", "no BERT tokenizer can be made of the files in"),
        ("tokenizer.json", "[" * 3000 + "]" * 3000, r"tokenizer\.json: lists .* 64 deep"),
        ("tokenizer_config.json", "null", r"tokenizer_config\.json: must hold one JSON object"),
        (
            "tokenizer_config.json",
            '{"a": 1, "a": 2}',
            r'_config\.json: key "a" occurs more than once',
        ),
        ("tokenizer_config.json", '{"do_lower_case": "x"}', "no BERT tokenizer can be made"),
        ("special_tokens_map.json", "9" * 400, r"_map\.json, line 1: a number of 400 digits"),
        ("added_tokens.json", b"\xff", r"added_tokens\.json: not UTF-8 text"),
    ],
)
def test_a_broken_file_of_a_tokenizer_is_named(
    folder: Path, name: str, content: str | bytes, expected: str
) -> None:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=f"tokenizer_dir: .*{expected}"):
        load_tokenizer(folder, vocab_size=9)


def test_a_vocabulary_without_the_token_of_unknown_words_is_refused(folder: Path) -> None:
    (folder / "vocab.txt").write_text("a\ndog\nrun\n##s\n")
    with pytest.raises(InputError, match=r"Missing \[UNK\] token"):
        load_tokenizer(folder, vocab_size=9)


def test_ids_beyond_the_embedding_are_refused(folder: Path) -> None:
    load_tokenizer(folder, vocab_size=9).save_pretrained(folder)
    (folder / "vocab.txt").unlink()
    saved = json.loads((folder / "tokenizer.json").read_text())
    saved["model"]["vocab"]["dog"] = 900
    (folder / "tokenizer.json").write_text(json.dumps(saved))
    with pytest.raises(InputError, match="numbers its 9 tokens up to 900, not 0 to 8"):
        load_tokenizer(folder, vocab_size=9)


def test_a_folder_in_place_of_a_vocabulary_is_named(folder: Path) -> None:
    (folder / "vocab.txt").unlink()
    (folder / "vocab.txt").mkdir()
    with pytest.raises(InputError, match=r"vocab\.txt: is a folder, not a file"):
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
