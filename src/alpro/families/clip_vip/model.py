"""CLIP-ViP (Xue et al., ICLR 2023): a dual encoder of videos and texts on top of CLIP.

B: batch, T: frames, S: image side, L: text tokens, E: width of the embeddings.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, CLIPConfig, CLIPModel

from alpro.families.clip_vip.vision import VipVisionModel
from alpro.modeling.attention import Kernel
from alpro.modeling.contracts import TextFeatures, VideoFeatures

MAX_LOGIT_SCALE = math.log(200)
LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True, kw_only=True)
class Tower:
    """Sizes of a transformer, under the names of CLIP's ``config.json``."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int


class ClipVip(nn.Module):
    """The dual encoder; parameters have transformers' names below ``clipmodel.``.

    Args:
        clip: transformers' CLIP; a `VipVisionModel` takes the place of its vision tower.
        plain: encode each frame by itself, and average.
    """

    def __init__(self, clip: CLIPModel, *, plain: bool) -> None:
        super().__init__()
        self.clipmodel = clip
        self.embed_dim = clip.visual_projection.out_features
        self.plain = plain

    def encode_video(self, frames: Tensor) -> VideoFeatures:
        """(B, T, 3, S, S) normalised frames to unit vectors (B, E), without tokens."""
        clips = frames.flatten(0, 1).unsqueeze(1) if self.plain else frames
        pooled = self.clipmodel.vision_model(clips)  # (B or B*T, D)
        embedding = _unit(self.clipmodel.visual_projection(pooled))
        if self.plain:
            embedding = _unit(embedding.unflatten(0, frames.shape[:2]).mean(dim=1))  # (B, E)
        return VideoFeatures(embedding.new_zeros(len(frames), 0, self.embed_dim), embedding)

    def encode_text(self, ids: Tensor, mask: Tensor) -> TextFeatures:
        """(B, L) ids and (B, L) mask of 0/1 to unit vectors (B, E), with tokens of width 0.

        The token of the largest id represents the text, the first of several: the end of text.
        """
        # transformers pools at the tokenizer's end of text, which a text may lack.
        hidden = self.clipmodel.text_model(input_ids=ids, attention_mask=mask).last_hidden_state
        rows = torch.arange(len(ids), device=ids.device)
        embedding = _unit(self.clipmodel.text_projection(hidden[rows, ids.argmax(dim=1)]))
        return TextFeatures(embedding.new_zeros(*ids.shape, 0), mask, embedding)

    @property
    def logit_scale(self) -> Tensor:
        """Trained log of the scale of similarities, ()."""
        return self.clipmodel.logit_scale

    def temperature(self) -> Tensor:
        """Scalar that divides cosine similarities."""
        return (-self.logit_scale).exp()

    @torch.no_grad()
    def clamp_temperature(self) -> None:
        """Clamp the scale of similarities to [1, 200], in place."""
        self.logit_scale.clamp_(0, MAX_LOGIT_SCALE)


def _unit(x: Tensor) -> Tensor:
    """(B, E) to float32 vectors of length 1."""
    return functional.normalize(x.float(), dim=-1)


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
        image_size: pixels of a frame's side.
        patch_size: pixels of a patch's side.
        vocab_size: tokens of the vocabulary.
        max_position_embeddings: longest text in tokens.
        projection_dim: width E of the common space.
        hidden_act: transformers' name of the activation.
        plain: CLIP of each frame, then the mean over frames (CLIP4Clip's meanP). The next three
            are then unused.
        num_proxies: proxies besides the class token (``add_cls_num``).
        temporal_size: rows of the time embedding; other numbers of frames interpolate it.
        use_temporal_embed: whether patches have a time embedding.
        logit_scale_init: initial log of the scale of similarities.
        gradient_checkpointing: recompute the layers of the vision tower in the backward pass.
        attention: kernel of `dot_product_attention`.
    """
    # CLIP without weights of its own: transformers initialises as OpenAI does.
    shared = {"hidden_act": hidden_act, "layer_norm_eps": LAYER_NORM_EPS}
    pixels = {"image_size": image_size, "patch_size": patch_size}
    words = {"vocab_size": vocab_size, "max_position_embeddings": max_position_embeddings}
    marks = {"bos_token_id": vocab_size - 2, "eos_token_id": vocab_size - 1}
    config = CLIPConfig(
        vision_config=asdict(vision) | shared | pixels,
        text_config=asdict(text) | shared | words | marks,
        projection_dim=projection_dim,
        logit_scale_init_value=logit_scale_init,
    )
    kernel = "eager" if attention == "plain" else "sdpa"
    clip = AutoModel.from_config(config, attn_implementation=kernel)
    clip.vision_model = VipVisionModel(
        clip.vision_model,
        num_proxies=0 if plain else num_proxies,
        temporal_size=temporal_size if use_temporal_embed and not plain else None,
        gradient_checkpointing=gradient_checkpointing,
        attention=attention,
    )
    return ClipVip(clip, plain=plain)
