"""The models of ALPRO's pretraining: the prompter, and the model that it teaches.

The prompter (ALPRO section 3.3) predicts the entities in a region of a video or image. It is
trained by the contrastive loss alone. Frozen, it is the teacher of pretraining: an entity is as
probable as its prompts, "A video of a dog." and the like, are similar to the region.

B: batch, T: frames, S: image side, N: patches per frame, P: patches per side (N = P * P),
L: text tokens, M: templates, or fused tokens (L + 1 + N), D: width, E: embedding, K: entities,
V: words of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from alpro.errors import InputError
from alpro.families.alpro.model import (
    AlproForRetrieval,
    AlproModel,
    Pooling,
    mean_inside,
    shared_parts,
)
from alpro.families.family import Architecture
from alpro.file_kinds import Media
from alpro.modeling.bert import SplitBert
from alpro.modeling.contracts import VideoEncoder
from alpro.modeling.state_dict_adapter import StateDict
from alpro.tasks.pretraining.config import PretrainingConfig

Tokenize = Callable[[list[str]], tuple[Tensor, Tensor]]
"""Texts to ids (B, L) and mask (B, L) of 0/1, padded to the longest text."""

ENTITY_HEAD_SCALE = 2  # width of the entity head's hidden layer over D, as in released weights
PROMPTER_PREFIX = "prompter."
ENTITY_HEAD_OUTPUT = "mpm_head.2.weight"  # (K, 2D)

VIDEO_TEMPLATES = (
    *("A footage of a {}.", "A footage of the {}.", "A footage of one {}."),
    *("A video of a {}.", "A video of the {}.", "A video of one {}."),
    *("A portrait of a {}.", "A portrait of the {}.", "A portrait of one {}."),
    *("A video footage of a {}.", "A video footage of the {}.", "A video footage of one {}."),
)
IMAGE_TEMPLATES = (
    *("A photo of a {}.", "A photo of the {}.", "A photo of one {}."),
    *("A picture of a {}.", "A picture of the {}.", "A picture of one {}."),
    *("A good photo of the {}.", "A good photo of a {}.", "A good photo of one {}."),
    *("A good picture of the {}.", "A good picture of a {}.", "A good picture of one {}."),
)
TEMPLATES: dict[Media, tuple[str, ...]] = {"video": VIDEO_TEMPLATES, "image": IMAGE_TEMPLATES}

MAX_PROMPT_TOKENS = 15  # as in the original; leaves an entity at least 7 word pieces
PROMPTS_AT_ONCE = 1000  # bounds the memory of encoding them: about 0.5 GB at the published size

PROMPT_NAMES = ("video_prompt_feat", "image_prompt_feat")
"""Names of the two buffers, which belong to a list of entities rather than to the weights."""
LANGUAGE_HEAD = "text_encoder.cls.*"
"""Pattern of the parameters that only MLM trains."""
UNUSED_BY_PROMPTER = ("itm_head.*", LANGUAGE_HEAD)
"""Patterns of parameters that a prompter's checkpoint may lack."""


def prompts_of(entities: Sequence[str], media: Media) -> list[str]:
    """All prompts of all entities, M * K: the first template of each entity, then the second."""
    return [template.format(entity) for template in TEMPLATES[media] for entity in entities]


def ensemble(embeddings: Tensor, *, num_entities: int) -> Tensor:
    """Means (K, E) of the prompts' (M*K, E) unit vectors, ordered as by `prompts_of`.

    As in the original they are not unit vectors: an entity whose prompts disagree is less similar
    to everything.
    """
    return embeddings.unflatten(0, (-1, num_entities)).mean(dim=0)


def check_prompts(tokenize: Tokenize, entities: Sequence[str]) -> None:
    """Check that the prompts of entities are short enough.

    `tokenize` may cut texts, but not below `MAX_PROMPT_TOKENS` + 1 tokens.

    Raises:
        InputError: an entity's prompt has more than `MAX_PROMPT_TOKENS` tokens.
    """
    for media in TEMPLATES:
        prompts = prompts_of(entities, media)
        for start in range(0, len(prompts), PROMPTS_AT_ONCE):
            _tokenized(tokenize, prompts[start : start + PROMPTS_AT_ONCE])


def _tokenized(tokenize: Tokenize, prompts: list[str]) -> tuple[Tensor, Tensor]:
    """Ids and mask (len(prompts), L); refuses prompts that are too long."""
    ids, mask = tokenize(prompts)
    too_long = (mask.sum(dim=1) > MAX_PROMPT_TOKENS).nonzero().flatten().tolist()
    if too_long:
        raise InputError(
            f"entity_file_path: the prompt {prompts[too_long[0]]!r} has more than "
            f"{MAX_PROMPT_TOKENS} tokens. Shorten that entity, or take it out of the file."
        )
    return ids, mask


class Prompter(AlproModel):
    """Two encoders in one space, and the embeddings of the prompts of K entities.

    ``itm_head``, the fusion layers and the language head are here because released checkpoints have
    them. Nothing reads them, so they are frozen. See `AlproModel` for the arguments.
    """

    text_encoder: SplitBert
    video_prompt_feat: Tensor
    image_prompt_feat: Tensor

    def __init__(
        self,
        visual_encoder: VideoEncoder,
        text_encoder: SplitBert,
        *,
        num_entities: int,
        embed_dim: int = 256,
        pooling: Pooling = "cls",
    ) -> None:
        super().__init__(visual_encoder, text_encoder, embed_dim=embed_dim, pooling=pooling)
        if num_entities < 1:
            raise ValueError(f"num_entities {num_entities}: a prompter needs an entity")
        self.num_entities = num_entities
        # Parts of released checkpoints that nothing reads.
        self.itm_head = nn.Linear(text_encoder.width, 2).requires_grad_(False)
        for layer in text_encoder.layers[text_encoder.fusion_layer :]:
            layer.requires_grad_(False)
        # Random until `build_prompts` or a checkpoint fills them.
        self.register_buffer("video_prompt_feat", torch.rand(num_entities, embed_dim))
        self.register_buffer("image_prompt_feat", torch.rand(num_entities, embed_dim))

    def prompt_embeddings(self, media: Media) -> Tensor:
        """Prompt embeddings (K, E) that a clip or an image is compared with."""
        return self.video_prompt_feat if media == "video" else self.image_prompt_feat

    @torch.no_grad()
    def build_prompts(self, tokenize: Tokenize, entities: Sequence[str]) -> None:
        """Fill both buffers with the prompts of the K entities; see `check_prompts`.

        Raises:
            InputError: an entity's prompt has more than `MAX_PROMPT_TOKENS` tokens.
        """
        if len(entities) != self.num_entities:
            raise ValueError(f"{len(entities)} entities for a prompter of {self.num_entities}")
        # Encode without dropout, in chunks that bound the memory.
        was_training, device = self.training, self.video_prompt_feat.device
        self.eval()
        for media in TEMPLATES:
            prompts = prompts_of(entities, media)
            embeddings = []
            for start in range(0, len(prompts), PROMPTS_AT_ONCE):
                ids, mask = _tokenized(tokenize, prompts[start : start + PROMPTS_AT_ONCE])
                embeddings.append(self.encode_text(ids.to(device), mask.to(device)).embedding)
            # One embedding per entity: the mean over its templates.
            means = ensemble(torch.cat(embeddings), num_entities=self.num_entities)
            self.prompt_embeddings(media).copy_(means)
        self.train(was_training)

    @torch.no_grad()
    def entity_probabilities(
        self, frames: Tensor, media: Media, *, region: Tensor | None = None
    ) -> Tensor:
        """Probability of each entity in a region.

        Args:
            frames: (B, T, 3, S, S) normalised, erased outside the region.
            media: selects the prompts.
            region: (B, P, P) bool, true inside, see `encode_video`; None for everywhere.

        Returns:
            (B, K) float32, each row of sum 1.
        """
        embedding = self.encode_video(frames, region=region).embedding  # (B, E)
        # The softmax is sharp at this temperature: similarities in float32.
        with torch.autocast(frames.device.type, enabled=False):
            prompts = self.prompt_embeddings(media).float()
            scores = functional.linear(embedding.float(), prompts) / self.temp.float()
        return scores.softmax(dim=1)


def build_prompter(config: PretrainingConfig, architecture: Architecture) -> Prompter:
    """The prompter of a config, randomly initialised."""
    parts = shared_parts(config, architecture, SplitBert)
    return Prompter(**parts, num_entities=config.num_entities)


def without_prompts(state: StateDict) -> StateDict:
    """A checkpoint's tensors without those made of a list of entities."""
    return {name: value for name, value in state.items() if name not in PROMPT_NAMES}


class AlproForPretraining(AlproForRetrieval):
    """The retrieval model with a language head and, given a prompter, an entity head.

    The prompter is frozen and stays in evaluation mode, whatever `train` is called with. It is part
    of the state dict (``prompter.*``), as in released checkpoints. MLM needs a text encoder that
    was made with `train_mlm_head`; see `AlproModel` for the other arguments.
    """

    text_encoder: SplitBert
    prompter: Prompter | None
    mpm_head: nn.Sequential | None

    def __init__(
        self,
        visual_encoder: VideoEncoder,
        text_encoder: SplitBert,
        *,
        prompter: Prompter | None = None,
        embed_dim: int = 256,
        pooling: Pooling = "cls",
    ) -> None:
        super().__init__(visual_encoder, text_encoder, embed_dim=embed_dim, pooling=pooling)
        # Only a model with a teacher has an entity head.
        self.mpm_head = None
        self.prompter = prompter
        if prompter is not None:
            width = text_encoder.width
            self.mpm_head = nn.Sequential(
                nn.Linear(width, ENTITY_HEAD_SCALE * width),
                nn.ReLU(),
                nn.Linear(ENTITY_HEAD_SCALE * width, prompter.num_entities),
            )
            prompter.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation mode; the prompter stays in the latter."""
        super().train(mode)
        if self.prompter is not None:
            self.prompter.eval()
        return self

    def predict_words(self, fused: Tensor, positions: Tensor) -> Tensor:
        """Predict the words at some positions.

        Args:
            fused: (B, M, D) from `fuse`, text positions first.
            positions: (B, L) bool, n of them true.

        Returns:
            Logits (n, V), in row-major order of the positions.
        """
        text = fused[:, : positions.shape[1]]  # (B, L, D)
        return self.text_encoder.predict_words(text[positions])

    def predict_entities(self, fused: Tensor, *, num_text_tokens: int, region: Tensor) -> Tensor:
        """Predict the entity in a region, from the mean of its patches' tokens.

        Args:
            fused: (B, M, D) from `fuse`.
            num_text_tokens: L.
            region: (B, P, P) bool, true inside; at least one patch of each row.

        Returns:
            Logits (B, K).
        """
        assert self.mpm_head is not None, "a model without a prompter has no entity head"
        patches = fused[:, num_text_tokens + 1 :]  # (B, N, D), the class token skipped
        return self.mpm_head(mean_inside(patches, region))
