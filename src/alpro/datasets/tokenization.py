"""Tokenization of captions, with a tokenizer read from a local folder.

Shapes: ``B`` batch, ``L`` text tokens.
"""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from alpro.datasets.storage.directory_index import folder_trouble
from alpro.errors import InputError
from alpro.file_kinds import HEAD_BYTES, encoding_of
from alpro.user_files import JsonError, UnreadableFileError, read_json, read_lines

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokenizer: TypeAlias = "PreTrainedTokenizerBase"
"""A tokenizer of transformers, in its fast implementation."""

_TEXT_STREAM = 2 << 16  # seed of the text of a sample, distinct from those of its frames
FURTHER_FILES = ("added_tokens.json", "special_tokens_map.json", "tokenizer_config.json")
_UNKNOWN_WORD = "x" * 200  # of more characters than WordPiece cuts into pieces


@dataclass(frozen=True, kw_only=True)
class TokenizerFormat:
    """Files and class of one kind of tokenizer."""

    kind: str  # for messages
    vocabulary: str  # file of the vocabulary; a ``tokenizer.json`` takes precedence over it
    description: str  # of that file, for messages
    load: Callable[[str], Tokenizer]

    @property
    def files(self) -> tuple[str, str]:
        """Files with a vocabulary; the second takes precedence."""
        return self.vocabulary, "tokenizer.json"

    def file_in(self, folder: Path) -> Path:
        """The file that the vocabulary is read from; see :func:`check_vocabulary`."""
        first, second = (folder / name for name in self.files)
        return second if second.is_file() else first


def _load(class_name: str, folder: str) -> Tokenizer:
    import transformers  # takes most of a second, which --help must not wait for

    return getattr(transformers, class_name).from_pretrained(folder, local_files_only=True)


WORDPIECE = TokenizerFormat(
    kind="BERT",
    vocabulary="vocab.txt",
    description="the vocabulary there, one token a line as vocab.txt",
    load=partial(_load, "BertTokenizerFast"),
)
"""BERT's, in lower case: ``[CLS] text [SEP]``."""
CLIP_BPE = TokenizerFormat(
    kind="CLIP",
    vocabulary="vocab.json",
    description="CLIP's vocab.json and merges.txt there, as they are in ext/clip-bpe",
    load=partial(_load, "CLIPTokenizerFast"),
)
"""CLIP's byte-pair encoding: ``<|startoftext|> text <|endoftext|>``, padded by the latter."""


def load_tokenizer(
    folder: Path, *, vocab_size: int, layout: TokenizerFormat = WORDPIECE
) -> Tokenizer:
    """Load a tokenizer from ``folder``, offline.

    Raises:
        InputError: see :func:`check_vocabulary`; the files make no tokenizer, or one of another
            number of tokens than the text encoder's ``vocab_size``.
    """
    # Load it, and try it on a word that yields the unknown token.
    check_vocabulary(folder, layout=layout)
    try:
        tokenizer = layout.load(str(folder))
        tokenizer([_UNKNOWN_WORD])  # of which some vocabularies cannot make a token
    except Exception as error:  # noqa: BLE001  # tokenizers raises nothing narrower
        message = str(error).partition("\n")[0]
        raise InputError(
            f"tokenizer_dir: no {layout.kind} tokenizer can be made of the files in {folder}: "
            f"{message}; copy them again from where they come from"
        ) from error
    # Each id must have a row in the text encoder's embedding.
    if len(tokenizer) != vocab_size:
        raise InputError(
            f"tokenizer_dir: the vocabulary in {folder} has {len(tokenizer)} tokens, but the text "
            f"encoder expects {vocab_size}; use the tokenizer that belongs to the model, or set "
            "the size of the vocabulary in the model's file to match"
        )
    if (largest := max(tokenizer.get_vocab().values())) >= vocab_size:
        raise InputError(
            f"tokenizer_dir: the vocabulary in {folder} numbers its {vocab_size} tokens up to "
            f"{largest}, not 0 to {vocab_size - 1}; use the tokenizer that belongs to the model"
        )
    return tokenizer


def check_vocabulary(folder: Path, *, layout: TokenizerFormat = WORDPIECE) -> None:
    """Check the files of a tokenizer before transformers reads them.

    Raises:
        InputError: ``folder`` or the vocabulary in it is missing, or a file cannot be read, is no
            UTF-8 text, no JSON object, or names a token twice.
    """
    # The vocabulary must be there.
    if not os.path.isdir(folder):
        raise InputError(
            f"tokenizer_dir: {folder_trouble(folder)}; give a folder that holds {layout.vocabulary}"
        )
    if not any(os.path.lexists(folder / name) for name in layout.files):
        wanted = " nor ".join(layout.files)
        raise InputError(f"tokenizer_dir: neither {wanted} in {folder}; put {layout.description}")
    # All files that transformers would read must be sound.
    try:
        for name in (*layout.files, *FURTHER_FILES):
            if os.path.lexists(path := folder / name):
                _check_lines(path) if path.suffix == ".txt" else _check_object(path)
    except UnreadableFileError as error:
        raise InputError(f"tokenizer_dir: {error}") from error


def _check_lines(path: Path) -> None:
    # A duplicate would shift the ids of all later tokens.
    lines_of: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        first = lines_of.setdefault(line.rstrip("\r\n"), number)
        if first != number:
            raise InputError(
                f"tokenizer_dir: {path}: token {line.strip()!r} is in the lines {first} and "
                f"{number}; take the vocabulary that belongs to the model"
            )
    # A byte-order mark would be part of the first token.
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    is_wide = encoding_of(head) != "utf-8-sig"
    if is_wide or head.startswith(BOM_UTF8):
        problem = "not UTF-8 text" if is_wide else "begins with a byte-order mark"
        raise InputError(
            f"tokenizer_dir: {path}: {problem}; save the file as UTF-8 without a byte-order mark, "
            "which would be part of the first token"
        )


def _check_object(path: Path) -> None:
    try:
        value = read_json(path)
    except JsonError as error:
        place = "" if error.line is None else f", line {error.line}"
        raise InputError(f"tokenizer_dir: {path}{place}: {error.reason}") from error
    if not isinstance(value, dict):
        raise InputError(f"tokenizer_dir: {path}: must hold one JSON object: {{...}}")


def drawn_text(texts: Sequence[str], key: tuple[int, int], seed: int) -> str:
    """Draw one of the texts of a training sample by the seed and the sample's key."""
    if len(texts) == 1:
        return texts[0]
    rng = np.random.default_rng([seed, *key, _TEXT_STREAM])
    return texts[int(rng.integers(len(texts)))]


def tokenize(
    tokenizer: Tokenizer, texts: Sequence[str], *, max_length: int
) -> tuple[Tensor, Tensor]:
    """Encode texts between the tokenizer's marks, padded to the longest, cut at ``max_length``.

    Returns:
        ids (B, L) int64 and mask (B, L) int64, 1 on tokens and 0 on padding; L is 0 without texts.
    """
    if not texts:
        return torch.zeros(0, 0, dtype=torch.int64), torch.zeros(0, 0, dtype=torch.int64)
    encoded = tokenizer(
        list(texts),
        padding="longest",
        truncation=True,
        max_length=max_length,
        return_token_type_ids=False,
    )
    return torch.tensor(encoded["input_ids"]), torch.tensor(encoded["attention_mask"])
