"""Video question answering: cross-entropy over a fixed list of answers.

Shapes: B videos, Q questions about them, A answers.
"""

from torch import Tensor, nn
from torch.nn import functional

from src.datasets.question_answering import QaBatch
from src.datasets.questions import QuestionRow
from src.evaluation.question_answering import QuestionAnsweringEvaluator
from src.evaluation.sets import EvaluationSet
from src.modeling.question_answering import AlproForQuestionAnswering
from src.training.task import Task


class QuestionAnsweringTask(Task):
    """Classify the answers to questions about videos (ALPRO section 4.2)."""

    model: AlproForQuestionAnswering

    def __init__(
        self,
        model: AlproForQuestionAnswering,
        *,
        normalize: nn.Module,
        evaluator: QuestionAnsweringEvaluator,
    ) -> None:
        """Assemble the objective.

        Args:
            model: what is trained.
            normalize: uint8 frames to what the model expects.
            evaluator: answers the questions of a validation set.
        """
        super().__init__()
        self.model = model
        self._normalize = normalize
        self._evaluator = evaluator

    def forward(self, batch: QaBatch) -> dict[str, Tensor]:
        """Mean cross-entropy over the Q questions, and the percentage answered right.

        Each of the B videos is encoded once.
        """
        video = self.model.encode_video(self._normalize(batch.frames))  # B videos
        text = self.model.encode_text(batch.text_ids, batch.text_mask)  # Q questions
        logits = self.model.answer(text, video.select(batch.video_of_question)).float()  # (Q, A)
        right = logits.detach().argmax(dim=-1) == batch.labels
        return {
            "loss": functional.cross_entropy(logits, batch.labels),
            "acc": 100.0 * right.float().mean(),
        }

    def evaluate(self, data: EvaluationSet[QuestionRow]) -> dict[str, float]:
        """Accuracies in percent, overall and by answer type, and the mean loss."""
        return self._evaluator.run(data).flat_metrics()
