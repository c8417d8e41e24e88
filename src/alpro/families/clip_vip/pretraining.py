"""Post-pretraining of CLIP-ViP; validation is retrieval, as in the original."""

from __future__ import annotations

from typing import Any

from alpro.datasets.annotations import CaptionRow
from alpro.datasets.shared_rows import pack_rows
from alpro.errors import InputError
from alpro.evaluation.evaluation_set import EvaluationSet, Progress
from alpro.experiment.data import Annotations, build_evaluation_set
from alpro.experiment.experiment import Experiment, TaskDefinition
from alpro.families.clip_vip.clip_sets import WITH_FRAME, ClipData
from alpro.families.clip_vip.family import build_model
from alpro.families.clip_vip.loss_specs import LOSS_SPECS, RETRIEVAL_LOSSES
from alpro.families.clip_vip.pretraining_objective import PostPretrainingObjective
from alpro.families.family import TaskSpec
from alpro.tasks.pretraining.data import CaptionedSet
from alpro.tasks.retrieval.evaluation import RetrievalEvaluator
from alpro.training.objective import TrainingPlan


class PostPretrainingData(ClipData):
    """Clips to train on, and sets of retrieval to validate on."""

    def validation(self) -> list[EvaluationSet[CaptionRow]]:  # type: ignore[override]
        """All validation sets, a text for each clip."""
        return [self._evaluation_set(one) for one in self.read("val_datasets")]

    def _evaluation_set(self, data: CaptionedSet) -> EvaluationSet[CaptionRow]:
        assert data.videos is not None
        texts = (CaptionRow(clip.texts[0], clip.video_id) for clip in data.items)
        rows = pack_rows(texts, CaptionRow)
        clips = Annotations(data.name, data.annotations, rows, data.videos, missing=set())
        config: Any = self._config  # with the keys of evaluation
        engine = self._experiment.engine
        return build_evaluation_set(config, clips, num_clips=1, engine=engine)

    def describe(self, data: EvaluationSet[CaptionRow]) -> str:  # type: ignore[override]
        """The size of a validation set."""
        return f"{data.name} ({data.annotations}): {len(data.rows)} pairs"


class PostPretraining(TaskDefinition[Any]):
    """Training with a contrastive loss of CLIP-ViP, over the global batch."""

    def __init__(self, experiment: Experiment[Any]) -> None:
        super().__init__(experiment)
        self.data = PostPretrainingData(experiment)

    def check(self, *, resumes: bool) -> None:
        """Check that some training set has the captions that the loss compares.

        Raises:
            InputError: none has.
        """
        super().check(resumes=resumes)
        name, sets = self.config.loss_name, self.config.train_datasets
        if name not in RETRIEVAL_LOSSES and all(one.vis_format != WITH_FRAME for one in sets):
            raise InputError(
                f"loss_name: {name} compares frames with their captions, but no training set has "
                f"them. Set its vis_format to {WITH_FRAME}, or loss_name to NCELearnableTempLoss."
            )

    def build_objective(
        self,
        model: Any,
        *,
        plan: TrainingPlan,  # noqa: ARG002
        progress: Progress,
    ) -> PostPretrainingObjective:
        """The loss of ``loss_name``."""
        experiment, config = self.experiment, self.config
        evaluator = RetrievalEvaluator(
            model,
            caption_chunk=config.val_batch_size,
            top_k=0,
            use_matching=False,
            progress=progress,
            **experiment.evaluator_arguments(),
        )
        return PostPretrainingObjective(
            model,
            engine=experiment.engine,
            normalize=experiment.normalize,
            evaluator=evaluator,
            loss_name=config.loss_name,
            loss_parameters={
                key: getattr(config, key) for key in LOSS_SPECS[config.loss_name].parameters
            },
            grad_cache_size=config.grad_cache_size,
        )


TASK = TaskSpec(definition=PostPretraining, build_model=build_model)
