"""The first stage of pretraining: the prompter, trained by the contrastive loss alone."""

from alpro.configs.schema import PrompterConfig
from alpro.evaluation.eval_mode import Progress
from alpro.experiment.model import build_prompter, load_weights
from alpro.experiment.pretraining import PretrainingExperiment
from alpro.families.alpro.pretrained import without_prompts
from alpro.families.alpro.prompter import PROMPT_NAMES, UNUSED_BY_PROMPTER, Prompter
from alpro.families.alpro.prompter_task import PrompterTask
from alpro.training.plan import TrainingPlan
from alpro.training.seeding import seed_everything


class PrompterExperiment(PretrainingExperiment[PrompterConfig, Prompter]):
    """The first stage: VTC alone makes the teacher of the second."""

    def build_model(self) -> Prompter:
        """The prompter, with random weights."""
        return build_prompter(self.resolved)

    def start_model(self, *, resumes: bool = False) -> Prompter:
        """A prompter with its starting weights; its prompts are made when it teaches."""
        seed_everything(self.config.seed)
        model = self.build_model()
        if not resumes:
            missing = (*PROMPT_NAMES, *UNUSED_BY_PROMPTER)
            load_weights(model, self.config, allowed_missing=missing, prepare=without_prompts)
        return model.to(self.engine.device)

    def build_task(
        self,
        model: Prompter,
        *,
        plan: TrainingPlan,  # noqa: ARG002
        progress: Progress,
    ) -> PrompterTask:
        """VTC."""
        return PrompterTask(
            model,
            engine=self.engine,
            normalize=self.normalize,
            mask_same_video=self.config.mask_same_video,
            precision=self.precision,
            allow_missing_videos=self.config.allow_missing_videos,
            progress=progress,
            grad_cache_size=self.config.grad_cache_size,
        )
