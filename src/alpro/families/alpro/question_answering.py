"""Video question answering with ALPRO."""

from __future__ import annotations

from torch import Tensor, nn

from alpro.configs.experiment import ExperimentConfig
from alpro.families.alpro.model import AlproModel, Pooling, shared_parts
from alpro.families.family import Architecture, TaskSpec
from alpro.modeling.bert import SplitBertEncoder
from alpro.modeling.contracts import TextEncoder, TextFeatures, VideoEncoder, VideoFeatures
from alpro.tasks.question_answering.definition import QuestionAnswering


def build_question_answering_model(
    config: ExperimentConfig, architecture: Architecture, *, num_labels: int
) -> AlproForQuestionAnswering:
    """The question answering model of a config, randomly initialised."""
    parts = shared_parts(config, architecture, SplitBertEncoder)
    return AlproForQuestionAnswering(**parts, num_labels=num_labels)


UNUSED_FOR_ANSWERS = ("vision_proj.*", "text_proj.*", "temp", "itm_head.*")
"""Patterns of parameters that question answering never reads."""


CLASSIFIER_SCALE = 2  # width of the classifier's hidden layer over D, as in the released weights


class AlproForQuestionAnswering(AlproModel):
    """The model with a classifier of A answers.

    The projections, the temperature and ``itm_head`` are here because released checkpoints have
    them. Nothing reads them, so they are frozen. Released checkpoints fit `SplitBertEncoder`; see
    `AlproModel` for the other arguments.
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
        self.num_labels, width = num_labels, text_encoder.width
        # The head of released checkpoints, and the classifier.
        self.itm_head = nn.Linear(width, 2)
        self.classifier = nn.Sequential(
            nn.Linear(width, CLASSIFIER_SCALE * width),
            nn.ReLU(),
            nn.Linear(CLASSIFIER_SCALE * width, num_labels),
        )
        # Parameters without gradients are frozen.
        self.temp.requires_grad_(False)
        for unused in (self.vision_proj, self.text_proj, self.itm_head):
            unused.requires_grad_(False)

    def answer(self, text: TextFeatures, video: VideoFeatures) -> Tensor:
        """Ask question i of `text` about clip i of `video`: logits (Q, A)."""
        return self.classifier(self.fuse_first(text, video))


TASK = TaskSpec(
    definition=QuestionAnswering,
    build_model=build_question_answering_model,
    allowed_missing=(AlproForQuestionAnswering.CLASSIFIER, *UNUSED_FOR_ANSWERS),
)
