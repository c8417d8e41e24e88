"""Video question answering: cross-entropy over a fixed list of answers.

Shapes: B videos, C clips of each, Q questions about them, A answers.
"""

from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from alpro.distributed.engine import Engine
from alpro.evaluation.encoding import encode_clips, score_clips
from alpro.evaluation.evaluation_set import EvaluationSet
from alpro.modeling.contracts import AnswerClassifier
from alpro.tasks.question_answering.annotations import QuestionRow
from alpro.tasks.question_answering.batches import QaBatch
from alpro.tasks.question_answering.evaluation import QuestionAnsweringEvaluator
from alpro.training.objective import Objective


class QuestionAnsweringObjective(Objective):
    """Classify the answers to questions about videos (ALPRO section 4.2)."""

    model: Any  # an nn.Module that is an AnswerClassifier

    def __init__(
        self,
        model: AnswerClassifier,
        *,
        engine: Engine,
        normalize: nn.Module,  # uint8 frames to the model's input
        evaluator: QuestionAnsweringEvaluator,  # its clip aggregation is used in training too
    ) -> None:
        super().__init__()
        self.model = model
        self._engine = engine
        self._normalize = normalize
        self._evaluator = evaluator

    def forward(self, batch: QaBatch) -> dict[str, Tensor]:
        """Cross-entropy and accuracy, in percent, of Q questions; each video is encoded once."""
        video = encode_clips(self.model, batch.frames, normalize=self._normalize)
        text = self.model.encode_text(batch.text_ids, batch.text_mask)  # Q questions
        logits = score_clips(
            partial(self.model.answer, text),
            video.select(batch.video_of_question),
            how=self._evaluator.clip_aggregation,
        )  # (Q, A)
        right = logits.detach().argmax(dim=-1) == batch.labels
        # Divide by the mean number of questions per rank: the mean of the ranks' losses, and of
        # their gradients, is then that over all questions.
        questions = self._engine.sum({"questions": len(right)})["questions"]
        summed = functional.cross_entropy(logits, batch.labels, reduction="sum")
        return {
            "loss": summed / (questions / self._engine.size),
            "acc": 100.0 * right.float().mean(),
        }

    def evaluate(self, data: EvaluationSet[QuestionRow]) -> dict[str, float]:
        """Accuracies in percent, overall and by answer type, and the mean loss."""
        return self._evaluator.run(data).flat_metrics()
