"""The first stage of ALPRO's pretraining: the prompter (ALPRO section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from alpro.distributed.engine import Engine
from alpro.evaluation.evaluation_set import Progress
from alpro.experiment.experiment import Experiment, TaskDefinition
from alpro.families.alpro.pretraining_model import (
    PROMPT_NAMES,
    UNUSED_BY_PROMPTER,
    Prompter,
    build_prompter,
    without_prompts,
)
from alpro.families.family import TaskSpec
from alpro.modeling.state_dict_adapter import StateDict
from alpro.tasks.pretraining.batches import PretrainBatch
from alpro.tasks.pretraining.config import PrompterConfig
from alpro.tasks.pretraining.data import PretrainingData
from alpro.tasks.pretraining.objective import LossWithMetrics, PairObjective, measure_contrast
from alpro.training.objective import TrainingPlan


class PrompterObjective(PairObjective):
    """VTC between captions and videos or images (ALPRO section 3.3)."""

    def forward(self, batch: PretrainBatch) -> dict[str, Tensor]:
        """``loss``, which is ``itc_loss``, and the accuracies of both directions."""
        self.model.clamp_temperature()
        itc = self._measure(batch, engine=self._engine)
        return {"loss": itc.loss, **itc.values("itc")}

    def measure_all(
        self, batch: PretrainBatch, *, engine: Engine, generator: torch.Generator
    ) -> Mapping[str, LossWithMetrics]:
        """VTC of B pairs, with the pairs of an engine's ranks as negatives."""
        return {"itc": self._measure(batch, engine=engine)}

    def _measure(self, batch: PretrainBatch, *, engine: Engine) -> LossWithMetrics:
        video = self._encode_videos(batch.frames)
        text = self._encode_texts(batch.text_ids, batch.text_mask)
        return measure_contrast(video, text, gathered=self._gathered(batch, engine=engine))


class PrompterPretraining(TaskDefinition[PrompterConfig]):
    """The first stage: VTC trains the teacher of the second."""

    def __init__(self, experiment: Experiment[PrompterConfig]) -> None:
        super().__init__(experiment)
        self.data = PretrainingData(experiment)

    def allowed_missing(self) -> Sequence[str]:
        """Prompts, built when it teaches, and parts that nothing reads."""
        return (*PROMPT_NAMES, *UNUSED_BY_PROMPTER)

    def prepare_checkpoint(self, model: Prompter, state: StateDict) -> StateDict:
        """A checkpoint's tensors without prompts."""
        return without_prompts(state)

    def build_objective(
        self, model: Prompter, *, plan: TrainingPlan, progress: Progress
    ) -> PrompterObjective:
        """VTC."""
        experiment, config = self.experiment, self.config
        return PrompterObjective(
            model,
            engine=experiment.engine,
            normalize=experiment.normalize,
            mask_same_video=config.mask_same_video,
            precision=experiment.precision,
            allow_missing_videos=config.allow_missing_videos,
            progress=progress,
            grad_cache_size=config.grad_cache_size,
        )


TASK = TaskSpec(definition=PrompterPretraining, build_model=build_prompter)
