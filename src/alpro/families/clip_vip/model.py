"""CLIP-ViP (Xue et al., ICLR 2023): a dual encoder of videos and texts on top of CLIP.

B: batch, T: frames, S: image side, L: text tokens, E: width of the embeddings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from alpro.modeling.attention import Kernel
from alpro.modeling.contracts import TextFeatures, VideoFeatures

MAX_LOGIT_SCALE = math.log(200)


@dataclass(frozen=True, kw_only=True)
class Tower:
    """Sizes of a transformer, under the names of CLIP's ``config.json``."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int


class ClipVip(nn.Module):
    """The dual encoder; parameters have Hugging Face's names below ``clipmodel.``."""

    embed_dim: int
    logit_scale: Tensor
    """Log of the scale of similarities, () in float32; ``clipmodel.logit_scale``."""

    def encode_video(self, frames: Tensor) -> VideoFeatures:
        """(B, T, 3, S, S) normalised frames to unit vectors (B, E), without tokens."""
        raise NotImplementedError

    def encode_text(self, ids: Tensor, mask: Tensor) -> TextFeatures:
        """(B, L) ids and (B, L) mask of 0/1 to unit vectors (B, E)."""
        raise NotImplementedError

    def temperature(self) -> Tensor:
        """Scalar that divides cosine similarities, ``exp(-logit_scale)``."""
        raise NotImplementedError

    def clamp_temperature(self) -> None:
        """Clamp `logit_scale` to [0, ln 200], in place."""
        raise NotImplementedError


def build_clip_vip(
    *,
    vision: Tower,
    text: Tower,
    image_size: int = 224,
    patch_size: int = 32,
    vocab_size: int = 49408,
    max_position_embeddings: int = 77,
    projection_dim: int = 512,
    hidden_act: str = "quick_gelu",
    plain: bool = False,
    num_proxies: int = 3,
    temporal_size: int = 12,
    use_temporal_embed: bool = True,
    logit_scale_init: float = 4.6,
    gradient_checkpointing: bool = False,
    attention: Kernel = "auto",
) -> ClipVip:
    """Build the model with random weights, by CLIP's rule.

    Args:
        vision: sizes of the vision tower.
        text: sizes of the text tower.
        image_size: pixels of a frame's side, a multiple of `patch_size`.
        patch_size: pixels of a patch's side.
        vocab_size: tokens of the vocabulary.
        max_position_embeddings: longest text in tokens.
        projection_dim: width E of the common space.
        hidden_act: activation of both towers, under transformers' name.
        plain: CLIP of each frame and the mean over frames (CLIP4Clip's meanP), without proxies; the
            next three are then unused.
        num_proxies: proxies besides the class token (``add_cls_num``).
        temporal_size: rows of the time embedding; other numbers of frames interpolate it.
        use_temporal_embed: whether patches have a time embedding.
        logit_scale_init: initial log of the scale of similarities.
        gradient_checkpointing: recompute each layer in the backward pass instead of storing it.
        attention: kernel of `dot_product_attention`.
    """
    raise NotImplementedError
