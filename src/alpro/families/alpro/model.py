"""ALPRO (Li et al., CVPR 2022): a video encoder, a text encoder, a fusion of both; from a config.

B: batch, T: frames, N: patches per frame, P: patches per side, L: text tokens, D: width, E: width
of the embeddings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from alpro.configs.experiment import ExperimentConfig
from alpro.families.alpro.config import TextEncoderConfig, VideoEncoderConfig
from alpro.families.family import Architecture
from alpro.modeling.attention import Kernel
from alpro.modeling.bert import SplitBertBase
from alpro.modeling.contracts import TextEncoder, TextFeatures, VideoEncoder, VideoFeatures
from alpro.modeling.timesformer import TimeSformer

INITIAL_TEMPERATURE = 0.07
MIN_TEMPERATURE = 0.001
MAX_TEMPERATURE = 0.5

Pooling = Literal["cls", "mean"]


class TimeSformerEncoder(VideoEncoder):
    """A TimeSformer under the name ``model``, as in the released checkpoints."""

    def __init__(self, model: TimeSformer) -> None:
        super().__init__()
        self.model = model
        self.width = model.embed_dim

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, 3, S, S) normalised frames to (B, 1+N, D) tokens."""
        return self.model(frames)


class AlproModel(nn.Module):
    """Two encoders, their projections to a common space, and the fusion.

    Args:
        visual_encoder: frames to tokens.
        text_encoder: ids to tokens, and fusion; as wide as the visual encoder.
        embed_dim: width E of the common space.
        pooling: token that the video embedding is projected from: "cls", the first, as in the
            paper, or "mean", that of the patch tokens.
    """

    def __init__(
        self,
        visual_encoder: VideoEncoder,
        text_encoder: TextEncoder,
        *,
        embed_dim: int = 256,
        pooling: Pooling = "cls",
    ) -> None:
        super().__init__()
        if visual_encoder.width != text_encoder.width:
            raise ValueError(
                f"fusion needs encoders of one width, but the video encoder has "
                f"{visual_encoder.width} and the text encoder {text_encoder.width}"
            )
        self.embed_dim = embed_dim
        self.pooling: Pooling = pooling
        self.visual_encoder = visual_encoder
        self.text_encoder = text_encoder
        # The projections to the common space, and the temperature of similarities in it.
        self.vision_proj = nn.Linear(visual_encoder.width, embed_dim)
        self.text_proj = nn.Linear(text_encoder.width, embed_dim)
        self.temp = nn.Parameter(torch.tensor(INITIAL_TEMPERATURE))

    def encode_video(self, frames: Tensor, *, region: Tensor | None = None) -> VideoFeatures:
        """Frames to tokens (B, 1+N, D) and unit vectors (B, E).

        Args:
            frames: (B, T, 3, S, S) normalised.
            region: (B, P, P) bool, P * P = N, true where the patch tokens count in their mean; None
                for everywhere. The class token is that of the whole, as in the original.
        """
        # The embedding comes from the class token, or from the mean of the patch tokens.
        tokens = self.visual_encoder(frames)  # (B, 1+N, D)
        if self.pooling == "cls":
            pooled = tokens[:, 0]  # (B, D)
        elif region is None:
            pooled = tokens[:, 1:].mean(dim=1)
        else:
            pooled = mean_inside(tokens[:, 1:], region)
        return VideoFeatures(tokens, _unit(self.vision_proj(pooled)))

    def encode_text(self, ids: Tensor, mask: Tensor) -> TextFeatures:
        """(B, L) ids and (B, L) mask of 0/1 to tokens (B, L, D) and unit vectors (B, E)."""
        tokens = self.text_encoder.encode(ids, mask)  # (B, L, D)
        return TextFeatures(tokens, mask, _unit(self.text_proj(tokens[:, 0])))

    def fuse(self, text: TextFeatures, video: VideoFeatures) -> Tensor:
        """Pair row i of `text` with row i of `video`: (B, L+1+N, D), text positions first."""
        return self.text_encoder.fuse(*_join(text, video))

    def fuse_first(self, text: TextFeatures, video: VideoFeatures) -> Tensor:
        """``fuse(text, video)[:, 0]``, (B, D), for less work."""
        return self.text_encoder.fuse_first(*_join(text, video))

    def temperature(self) -> Tensor:
        """Trainable scalar that divides cosine similarities."""
        return self.temp

    @torch.no_grad()
    def clamp_temperature(self) -> None:
        """Clamp the trained temperature to its bounds, in place."""
        self.temp.clamp_(MIN_TEMPERATURE, MAX_TEMPERATURE)


class AlproForRetrieval(AlproModel):
    """The model with a head that classifies pairs of a text and a video as matching or not."""

    def __init__(
        self,
        visual_encoder: VideoEncoder,
        text_encoder: TextEncoder,
        *,
        embed_dim: int = 256,
        pooling: Pooling = "cls",
    ) -> None:
        super().__init__(visual_encoder, text_encoder, embed_dim=embed_dim, pooling=pooling)
        self.itm_head = nn.Linear(text_encoder.width, 2)

    def match(self, text: TextFeatures, video: VideoFeatures) -> Tensor:
        """Pair row i of `text` with row i of `video`: logits (B, 2); see `contracts.MATCH`."""
        return self.itm_head(self.fuse_first(text, video))


def mean_inside(patches: Tensor, region: Tensor) -> Tensor:
    """The mean (B, D) of the patch tokens (B, N, D) inside a region (B, P, P) bool, N = P * P."""
    # A region without patches has the mean 0.
    inside = region.flatten(1).unsqueeze(-1)  # (B, N, 1)
    mean = (patches * inside).sum(dim=1) / inside.sum(dim=1).clamp(min=1)
    return mean.to(patches.dtype)


def _unit(x: Tensor) -> Tensor:
    """(B, E) to float32 vectors of length 1."""
    return functional.normalize(x.float(), dim=-1)


def _join(text: TextFeatures, video: VideoFeatures) -> tuple[Tensor, Tensor]:
    """Tokens (B, L+1+N, D) and mask (B, L+1+N) of text and video together."""
    tokens = torch.cat([text.tokens, video.tokens], dim=1)
    # Without a mask all video tokens count.
    video_mask = video.mask
    if video_mask is None:
        video_mask = text.mask.new_ones(video.tokens.shape[:2])
    return tokens, torch.cat([text.mask, video_mask], dim=1)


def shared_parts(
    config: ExperimentConfig, architecture: Architecture, flavour: Callable[..., SplitBertBase]
) -> dict[str, Any]:
    """Arguments of every :class:`AlproModel`, randomly initialised.

    The flavour is one of the classes of ``modeling/bert.py``.
    """
    # The size and number of frames come from the experiment, the rest from the model's files.
    video: VideoEncoderConfig = architecture["visual_model_cfg"]
    text: TextEncoderConfig = architecture["model_config"]
    kernel = cast(Kernel, config.attention)
    timesformer = TimeSformer(
        image_size=config.crop_img_size,
        patch_size=video.patch_size,
        num_frames=config.num_frm,
        embed_dim=video.embed_dim,
        depth=video.depth,
        num_heads=video.num_heads,
        mlp_ratio=video.mlp_ratio,
        drop_rate=video.drop_rate,
        attn_drop_rate=video.attn_drop_rate,
        drop_path_rate=video.drop_path_rate,
        gradient_checkpointing=video.gradient_checkpointing,
        initializer_range=video.initializer_range,
        pos_embed_std=video.pos_embed_std,
        time_embed_std=video.time_embed_std,
        temporal_init=cast(Any, video.temporal_init),
        attention=kernel,
    )
    bert = flavour(
        vocab_size=text.vocab_size,
        hidden_size=text.hidden_size,
        num_hidden_layers=text.num_hidden_layers,
        num_attention_heads=text.num_attention_heads,
        intermediate_size=text.intermediate_size,
        fusion_layer=text.fusion_layer,
        hidden_act=text.hidden_act,
        hidden_dropout_prob=text.hidden_dropout_prob,
        attention_probs_dropout_prob=text.attention_probs_dropout_prob,
        max_position_embeddings=text.max_position_embeddings,
        type_vocab_size=text.type_vocab_size,
        pad_token_id=text.pad_token_id,
        initializer_range=text.initializer_range,
        layer_norm_eps=text.layer_norm_eps,
        attention=kernel,
    )
    return {
        "visual_encoder": TimeSformerEncoder(timesformer),
        "text_encoder": bert,
        "embed_dim": text.itc_embed_dim,
        "pooling": video.pooling,
    }
