"""The model of ALPRO's pretraining: VTC, VTM, MLM and PEM.

B: batch, L: text tokens, N: patches per frame, P: patches per side (N = P * P), D: width,
M: fused tokens (L + 1 + N), K: entities, V: words of the vocabulary.
"""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn

from alpro.families.alpro.model import AlproForRetrieval, Pooling, mean_inside
from alpro.families.alpro.prompter import Prompter
from alpro.modeling.bert import SplitBert
from alpro.modeling.contracts import VideoEncoder

ENTITY_HEAD_SCALE = 2  # width of the entity head's hidden layer over D, as in released weights
PROMPTER_PREFIX = "prompter."
ENTITY_HEAD_OUTPUT = "mpm_head.2.weight"  # (K, 2D)


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
