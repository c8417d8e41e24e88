"""Model, tokenizer, checkpoints and the one task of the second family.

B: batch, T: frames, L: words, E: width.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from alpro.datasets.tokenization import TokenizerFormat
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.families.family import (
    Architecture,
    CheckpointFormat,
    ModelFamily,
    StartingWeights,
    TaskSpec,
)
from alpro.modeling.contracts import TextFeatures, VideoFeatures
from alpro.modeling.state_dict_adapter import StateDict
from alpro.optimization.optimizer import group_parameters
from alpro.tasks.retrieval.definition import Retrieval

MAX_LOGIT_SCALE = math.log(100)


class TinyDualEncoder(nn.Module):
    """A bag of cells and a bag of words, in one space."""

    def __init__(self, *, width: int, num_words: int, grid: int) -> None:
        super().__init__()
        self.embed_dim = width
        self.grid = grid
        self.visual = nn.Linear(3 * grid**2, width)
        self.words = nn.Embedding(num_words, width)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode_video(self, frames: Tensor) -> VideoFeatures:
        """(B, T, 3, S, S) to unit vectors (B, E), without tokens."""
        cells = functional.adaptive_avg_pool2d(frames.mean(dim=1), self.grid)  # (B, 3, G, G)
        embedding = functional.normalize(self.visual(cells.flatten(1)).float(), dim=-1)
        return VideoFeatures(embedding.new_zeros(len(frames), 0, self.embed_dim), embedding)

    def encode_text(self, ids: Tensor, mask: Tensor) -> TextFeatures:
        """(B, L) ids and mask to unit vectors (B, E)."""
        tokens = self.words(ids) * mask[..., None]  # (B, L, E)
        return TextFeatures(tokens, mask, functional.normalize(tokens.sum(1).float(), dim=-1))

    def temperature(self) -> Tensor:
        """Divisor of the similarities, as CLIP has it."""
        return (-self.logit_scale).exp()

    @torch.no_grad()
    def clamp_temperature(self) -> None:
        """Keep the scale below CLIP's bound."""
        self.logit_scale.clamp_(max=MAX_LOGIT_SCALE)


def build_model(_config: Any, architecture: Architecture) -> TinyDualEncoder:
    """The towers of a config, with random weights."""
    towers = architecture["tiny_config"]
    return TinyDualEncoder(width=towers.width, num_words=towers.num_words, grid=towers.grid)


def load_words(folder: str) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words."""
    words = json.loads(Path(folder, "words.json").read_text())
    fast = FastTokenizer(WordLevel(words, unk_token="?"))
    fast.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=fast, unk_token="?", pad_token="_")


def adapt(state: StateDict, _model: Mapping[str, Tensor]) -> StateDict:
    """From the names of the family's authors, ``vision.`` and ``text.``, and ours."""
    adapted = {}
    for key, value in state.items():
        if not key.startswith("aux_head."):
            adapted[key.replace("vision.", "visual.").replace("text.", "words.")] = value
    return adapted


def preprocessing(config: Any) -> PixelPreprocessing:
    """Whole pictures on black, B, G, R from 0 to 255."""
    return PixelPreprocessing(
        size=config.crop_img_size,
        resize="pad",
        antialias=False,
        mean=(124.0, 116.0, 104.0),
        std=(58.0, 57.0, 57.0),
        scale=255,
        channel_order="bgr",
    )


TASK = TaskSpec(definition=Retrieval, build_model=build_model)
FAMILY = ModelFamily(
    tasks={"retrieval": __name__},
    tokenizer=TokenizerFormat(
        kind="word list", vocabulary="words.json", description="a list of words", load=load_words
    ),
    vocab_size=lambda architecture: architecture["tiny_config"].num_words,
    preprocessing=preprocessing,
    checkpoint=CheckpointFormat(
        roots=("visual", "words", "vision", "text", "logit_scale", "aux_head"),
        files=("tiny_config",),
        adapt=adapt,
    ),
    starting_weights=StartingWeights(
        load=lambda _model, _config: False, missing=lambda _config: [], remedy="nothing else"
    ),
    parameter_groups=lambda model, config: group_parameters(
        model, lambda name, *_: (0.5 if name.startswith("words.") else 1.0, config.weight_decay)
    ),
)
