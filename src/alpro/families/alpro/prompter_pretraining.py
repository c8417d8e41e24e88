"""The first stage of ALPRO's pretraining: the prompter (ALPRO section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

from alpro.evaluation.evaluation_set import Progress
from alpro.experiment.experiment import Experiment, TaskDefinition
from alpro.families.alpro.encoders import shared_parts
from alpro.families.alpro.prompter import (
    PROMPT_NAMES,
    UNUSED_BY_PROMPTER,
    Prompter,
    PrompterObjective,
    without_prompts,
)
from alpro.families.family import Architecture, TaskSpec
from alpro.modeling.bert import SplitBert
from alpro.modeling.state_dict_adapter import StateDict
from alpro.tasks.pretraining.config import PretrainingConfig, PrompterConfig
from alpro.tasks.pretraining.data import PretrainingData
from alpro.training.objective import TrainingPlan


def build_prompter(config: PretrainingConfig, architecture: Architecture) -> Prompter:
    """The prompter of a config, randomly initialised."""
    parts = shared_parts(config, architecture, SplitBert)
    return Prompter(**parts, num_entities=config.num_entities)


class PrompterPretraining(TaskDefinition[PrompterConfig]):
    """The first stage: VTC trains the teacher of the second."""

    def __init__(self, experiment: Experiment[PrompterConfig]) -> None:
        super().__init__(experiment)
        self.data = PretrainingData(experiment)

    def allowed_missing(self) -> Sequence[str]:
        """Prompts, built when it teaches, and parts that nothing reads."""
        return (*PROMPT_NAMES, *UNUSED_BY_PROMPTER)

    def prepare_checkpoint(self, model: Prompter, state: StateDict) -> StateDict:  # noqa: ARG002
        """A checkpoint's tensors without prompts."""
        return without_prompts(state)

    def build_objective(
        self,
        model: Prompter,
        *,
        plan: TrainingPlan,  # noqa: ARG002
        progress: Progress,
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
