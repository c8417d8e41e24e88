"""ALPRO for question answering: one answer out of a fixed list, read from the fused tokens.

Q: questions, D: width, A: answers.
"""

from __future__ import annotations

from torch import Tensor, nn

from alpro.families.alpro.model import AlproModel, Pooling
from alpro.modeling.contracts import TextEncoder, TextFeatures, VideoEncoder, VideoFeatures

UNUSED_FOR_ANSWERS = ("vision_proj.*", "text_proj.*", "temp", "itm_head.*")
"""Patterns of what the model has and neither training nor evaluation reads."""
CLASSIFIER_SCALE = 2  # width of the classifier's hidden layer over D, as in the released weights


class AlproForQuestionAnswering(AlproModel):
    """The model with a classifier of answers.

    The projections, the temperature and ``itm_head`` are here because released checkpoints have
    them. Nothing that is trained reads them, so they are frozen.

    Args:
        visual_encoder: See `AlproModel`.
        text_encoder: See `AlproModel`; released checkpoints fit `SplitBertEncoder`.
        num_labels: Number of answers A.
        embed_dim: See `AlproModel`.
        pooling: See `AlproModel`.
    """

    CLASSIFIER = "classifier.*"
    CLASSIFIER_OUTPUT = "classifier.2.weight"  # (A, 2D)

    def __init__(
        self,
        visual_encoder: VideoEncoder,
        text_encoder: TextEncoder,
        *,
        num_labels: int,
        embed_dim: int = 256,
        pooling: Pooling = "cls",
    ) -> None:
        super().__init__(visual_encoder, text_encoder, embed_dim=embed_dim, pooling=pooling)
        if num_labels < 1:
            raise ValueError(f"num_labels {num_labels}: there must be an answer to give")
        width = text_encoder.width
        self.num_labels = num_labels
        self.itm_head = nn.Linear(width, 2)
        self.classifier = nn.Sequential(
            nn.Linear(width, CLASSIFIER_SCALE * width),
            nn.ReLU(),
            nn.Linear(CLASSIFIER_SCALE * width, num_labels),
        )
        self.temp.requires_grad_(False)
        for unused in (self.vision_proj, self.text_proj, self.itm_head):
            unused.requires_grad_(False)

    def answer(self, text: TextFeatures, video: VideoFeatures) -> Tensor:
        """Ask question i of `text` about clip i of `video`: logits (Q, A)."""
        return self.classifier(self.fuse_first(text, video))
