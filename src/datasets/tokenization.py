"""Captions to token ids, with a tokenizer read from a local folder.

Shapes: ``B`` batch, ``L`` text tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from src.datasets.storage import folder_trouble
from src.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokenizer: TypeAlias = "PreTrainedTokenizerBase"
"""A tokenizer of transformers; ours are BERT's, in its fast implementation."""

_VOCABULARY_FILES = ("vocab.txt", "tokenizer.json")  # the latter is read where both are


def load_tokenizer(folder: Path, *, vocab_size: int) -> Tokenizer:
    """Load a lower-casing BERT tokenizer from ``folder``; the network is never asked.

    Raises:
        InputError: where folder or vocabulary is missing, or holds another number of tokens than
            the text encoder's ``vocab_size``.
    """
    check_vocabulary(folder)
    # Imported here: transformers takes most of a second, and --help must not wait for it.
    from transformers import BertTokenizerFast  # type: ignore[attr-defined]  # made at run time

    try:
        tokenizer = BertTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(f"tokenizer_dir: cannot read {folder}: {error}") from error
    if len(tokenizer) != vocab_size:
        raise InputError(
            f"tokenizer_dir: the vocabulary in {folder} has {len(tokenizer)} tokens, but the text "
            f"encoder expects {vocab_size} (vocab_size in model_config); use the tokenizer that "
            "belongs to the model, or set vocab_size to match"
        )
    return tokenizer


def check_vocabulary(folder: Path) -> None:
    """Raise InputError where ``folder`` or the vocabulary in it is missing."""
    if not folder.is_dir():
        raise InputError(
            f"tokenizer_dir: {folder_trouble(folder)}; give a folder that holds vocab.txt"
        )
    if not any((folder / name).is_file() for name in _VOCABULARY_FILES):
        wanted = " nor ".join(_VOCABULARY_FILES)
        raise InputError(
            f"tokenizer_dir: neither {wanted} in {folder}; put the vocabulary there, one token a "
            "line as vocab.txt"
        )


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
