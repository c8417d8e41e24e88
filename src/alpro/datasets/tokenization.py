"""Captions to token ids, with a tokenizer read from a local folder.

Shapes: ``B`` batch, ``L`` text tokens.
"""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from alpro.datasets.storage import folder_trouble
from alpro.errors import InputError
from alpro.file_kinds import HEAD_BYTES, encoding_of
from alpro.user_files import JsonError, UnreadableFileError, read_json, read_lines

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokenizer: TypeAlias = "PreTrainedTokenizerBase"
"""A tokenizer of transformers; ours are BERT's, in its fast implementation."""

_VOCABULARY_FILES = ("vocab.txt", "tokenizer.json")  # the latter is read where both are
_FURTHER_FILES = ("added_tokens.json", "special_tokens_map.json", "tokenizer_config.json")
_UNKNOWN_WORD = "x" * 200  # of more characters than WordPiece cuts into pieces


def load_tokenizer(folder: Path, *, vocab_size: int) -> Tokenizer:
    """Load a lower-casing BERT tokenizer from ``folder``; the network is never asked.

    Raises:
        InputError: see :func:`check_vocabulary`; the files make no tokenizer, or one of another
            number of tokens than the text encoder's ``vocab_size``.
    """
    check_vocabulary(folder)
    # Imported here: transformers takes most of a second, and --help must not wait for it.
    from transformers import BertTokenizerFast  # type: ignore[attr-defined]  # made at run time

    try:
        tokenizer = BertTokenizerFast.from_pretrained(str(folder), local_files_only=True)
        tokenizer([_UNKNOWN_WORD])  # of which some vocabularies cannot make a token
    except Exception as error:  # noqa: BLE001  # tokenizers raises nothing narrower
        message = str(error).partition("\n")[0]
        raise InputError(
            f"tokenizer_dir: no BERT tokenizer can be made of the files in {folder}: {message}; "
            "copy them again from where they come from"
        ) from error
    if len(tokenizer) != vocab_size:
        raise InputError(
            f"tokenizer_dir: the vocabulary in {folder} has {len(tokenizer)} tokens, but the text "
            f"encoder expects {vocab_size} (vocab_size in model_config); use the tokenizer that "
            "belongs to the model, or set vocab_size to match"
        )
    if (largest := max(tokenizer.get_vocab().values())) >= vocab_size:
        raise InputError(
            f"tokenizer_dir: the vocabulary in {folder} numbers its {vocab_size} tokens up to "
            f"{largest}, not 0 to {vocab_size - 1}; use the tokenizer that belongs to the model"
        )
    return tokenizer


def check_vocabulary(folder: Path) -> None:
    """Check the files of a tokenizer before transformers reads them.

    Raises:
        InputError: ``folder`` or the vocabulary in it is missing, or a file cannot be read, is no
            UTF-8 text, no JSON object, or names a token twice.
    """
    if not os.path.isdir(folder):
        raise InputError(
            f"tokenizer_dir: {folder_trouble(folder)}; give a folder that holds vocab.txt"
        )
    if not any(os.path.lexists(folder / name) for name in _VOCABULARY_FILES):
        wanted = " nor ".join(_VOCABULARY_FILES)
        raise InputError(
            f"tokenizer_dir: neither {wanted} in {folder}; put the vocabulary there, one token a "
            "line as vocab.txt"
        )
    try:
        for name in (*_VOCABULARY_FILES, *_FURTHER_FILES):
            if os.path.lexists(path := folder / name):
                _check_lines(path) if path.suffix == ".txt" else _check_object(path)
    except UnreadableFileError as error:
        raise InputError(f"tokenizer_dir: {error}") from error


def _check_lines(path: Path) -> None:
    """Refuse a token that is there twice, which would shift the ids of those after it."""
    lines_of: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        first = lines_of.setdefault(line.rstrip("\r\n"), number)
        if first != number:
            raise InputError(
                f"tokenizer_dir: {path}: token {line.strip()!r} is in the lines {first} and "
                f"{number}; take the vocabulary that belongs to the model"
            )
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


def vocabulary_file(folder: Path) -> Path:
    """The file that a tokenizer's vocabulary is read from; see :func:`check_vocabulary`."""
    paths = [folder / name for name in _VOCABULARY_FILES]
    return paths[1] if paths[1].is_file() else paths[0]


def tokenize(
    tokenizer: Tokenizer, texts: Sequence[str], *, max_length: int
) -> tuple[Tensor, Tensor]:
    """Encode ``[CLS] text [SEP]``, padded to the longest text, cut at ``max_length``.

    Returns:
        ids (B, L) int64 and mask (B, L) int64, 1 on tokens and 0 on padding.
    """
    encoded = tokenizer(
        list(texts),
        padding="longest",
        truncation=True,
        max_length=max_length,
        return_token_type_ids=False,
    )
    return torch.tensor(encoded["input_ids"]), torch.tensor(encoded["attention_mask"])
