"""The two stages of ALPRO's pretraining: the prompter, then its student (ALPRO section 3)."""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import cast

from torch import Tensor

from alpro.configs.schema import GLOBAL, PretrainConfig, PrompterConfig
from alpro.datasets.captions import read_entities
from alpro.datasets.pretraining import PretrainBatch
from alpro.datasets.tokenization import tokenize
from alpro.distributed.engine import autocast
from alpro.errors import InputError, listed
from alpro.evaluation.evaluation_set import Progress
from alpro.experiment.experiment import Experiment, TaskDefinition
from alpro.experiment.pretraining import PretrainingData
from alpro.families.alpro.checkpoint import ROOTS
from alpro.families.alpro.config import VideoEncoderConfig
from alpro.families.alpro.pretrained import check_num_entities, load_teacher, without_prompts
from alpro.families.alpro.pretraining_model import PROMPTER_PREFIX, AlproForPretraining
from alpro.families.alpro.pretraining_task import (
    Objectives,
    PretrainingTask,
    predict_entity_pairs,
)
from alpro.families.alpro.prompter import (
    LANGUAGE_HEAD,
    MAX_PROMPT_TOKENS,
    PROMPT_NAMES,
    UNUSED_BY_PROMPTER,
    Prompter,
    PrompterTask,
    check_prompts,
)
from alpro.modeling.state_dict_adapter import StateDict
from alpro.training.run_directory import run_directory_of
from alpro.training.state_dicts import read_shapes
from alpro.training.task import TrainingPlan

logger = logging.getLogger(__name__)

TEACHER_KEY = "teacher_weights_path"
ENTITY_PARTS = (f"{PROMPTER_PREFIX}*", "mpm_head.*")  # parameters that only PEM needs


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

    def build_task(
        self,
        model: Prompter,
        *,
        plan: TrainingPlan,  # noqa: ARG002
        progress: Progress,
    ) -> PrompterTask:
        """VTC."""
        experiment, config = self.experiment, self.config
        return PrompterTask(
            model,
            engine=experiment.engine,
            normalize=experiment.normalize,
            mask_same_video=config.mask_same_video,
            precision=experiment.precision,
            allow_missing_videos=config.allow_missing_videos,
            progress=progress,
            grad_cache_size=config.grad_cache_size,
        )


class VideoLanguagePretraining(TaskDefinition[PretrainConfig]):
    """The second stage: VTC + VTM + MLM + PEM."""

    def __init__(self, experiment: Experiment[PretrainConfig]) -> None:
        super().__init__(experiment)
        config = self.config
        video = cast(VideoEncoderConfig, experiment.resolved.architecture["visual_model_cfg"])
        # Patches per side, and pixels of each.
        grid = config.crop_img_size // video.patch_size, video.patch_size
        self.data = PretrainingData(
            experiment,
            mlm_probability=config.mlm_probability if config.use_mlm else None,
            patches=grid if config.use_mpm else None,
        )

    def other_inputs(self, *, resumes: bool = False) -> Mapping[str, Path]:
        """The list of entities and the teacher, if PEM is on."""
        config = self.config
        if not config.use_mpm:
            return {}
        # A run that resumes, or starts from a pretraining checkpoint, has its teacher.
        files = {"entity_file_path": Path(str(config.entity_file_path))}
        if not resumes and self.makes_teacher and config.teacher_weights_path is not None:
            files[TEACHER_KEY] = Path(config.teacher_weights_path)
        return files

    def check(self, *, resumes: bool) -> None:
        """Check the entities and their teacher."""
        config = self.config
        if not config.use_mpm or resumes:
            return
        # The teacher first: its number of entities decides which lists can be right.
        self._check_teacher()
        self._check_entities()
        is_unused = not self.makes_teacher and config.teacher_weights_path
        if is_unused and self.experiment.engine.rank == 0:
            path = config.e2e_weights_path
            logger.warning("%s has no effect: %s brings its own prompter", TEACHER_KEY, path)

    @cached_property
    def entities(self) -> tuple[str, ...]:
        """Entities that the prompter distinguishes."""
        path = Path(str(self.config.entity_file_path))
        return read_entities(path, num_entities=self.config.num_entities)

    @cached_property
    def start_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of the tensors in the starting checkpoint, if there is one, by name."""
        path = self.config.e2e_weights_path
        return read_shapes(Path(path), ROOTS) if path is not None and os.path.isfile(path) else {}

    @property
    def makes_teacher(self) -> bool:
        """Whether PEM needs a teacher that the starting checkpoint does not bring."""
        return self.config.use_mpm and not any(
            name.startswith(PROMPTER_PREFIX) for name in self.start_shapes
        )

    def allowed_missing(self) -> Sequence[str]:
        """Heads of losses that the checkpoint was not trained with."""
        if self.config.use_mpm:
            self._check_teacher()
        missing = ENTITY_PARTS if self.makes_teacher else ()
        return missing if self.config.use_mlm else (*missing, LANGUAGE_HEAD)

    def complete_model(self, model: AlproForPretraining) -> None:
        """Load the teacher of PEM and build its prompts, unless the checkpoint brought one."""
        if model.prompter is None or not self.makes_teacher:
            return
        load_teacher(model.prompter, Path(str(self.config.teacher_weights_path)))
        model.prompter.build_prompts(self._tokenize_prompts, self.entities)
        count, few = len(self.entities), listed(self.entities)
        logger.info("the prompter predicts %d entities: %s", count, few)

    def predict_entities(
        self, model: AlproForPretraining, batch: PretrainBatch
    ) -> tuple[Tensor, Tensor]:
        """Predict the entities in B regions: logits and the prompter's probabilities, (B, K)."""
        experiment = self.experiment
        with autocast(experiment.precision, experiment.engine.device):
            # PEM fuses the plain captions with the whole clip.
            video = model.encode_video(experiment.normalize(batch.frames[:, 0]))
            fused = model.fuse(model.encode_text(batch.text_ids, batch.text_mask), video)
            return predict_entity_pairs(model, batch, fused, normalize=experiment.normalize)

    def _check_teacher(self) -> None:
        """Refuse to start without a teacher, or with one of another number of entities."""
        config, path = self.config, Path(str(self.config.e2e_weights_path))
        if not self.makes_teacher:
            check_num_entities(self.start_shapes, num_entities=config.num_entities, path=path)
        elif config.teacher_weights_path is None:
            raise InputError(
                f"e2e_weights_path: {path} holds no prompter, the teacher of the entity loss. "
                f"Give {TEACHER_KEY} the checkpoint of one, or set use_mpm to 0."
            )

    def _check_entities(self) -> None:
        """Refuse entities that no teacher can have, or that are not the teacher's own."""
        # Entities that the tokenizer cannot spell would have identical prompts.
        path = self.config.entity_file_path
        ids, _ = self.experiment.tokenize(self.entities)
        unknown = (ids == self.experiment.tokenizer.unk_token_id).any(dim=1).tolist()
        if any(unknown):
            named = [repr(name) for name, bad in zip(self.entities, unknown, strict=True) if bad]
            raise InputError(
                f"entity_file_path: {path}: the tokenizer does not know "
                f"{listed(named)}. Take these entities out of the file."
            )
        # Prompts must not be cut, and a given teacher was made of the same list.
        check_prompts(self._tokenize_prompts, self.entities)
        if not self.makes_teacher:
            self._compare_entities()

    def _compare_entities(self) -> None:
        """Refuse entities that are not those of the checkpoint, if its run has kept them."""
        config, checkpoint = self.config, self.config.e2e_weights_path
        run = run_directory_of(Path(str(checkpoint)))
        if run is None or not run.entities.is_file():
            return
        before = read_entities(run.entities, num_entities=config.num_entities)
        # Name the first entity that changed.
        pairs = zip(before, self.entities, strict=True)
        changed = [(place, *pair) for place, pair in enumerate(pairs, 1) if pair[0] != pair[1]]
        if changed:
            place, there, here = changed[0]
            raise InputError(
                f"entity_file_path: {config.entity_file_path} is not the list that {checkpoint} "
                f"was pretrained with, {run.entities}: entity {place} is {there!r} there, {here!r} "
                f"here. Give --entity_file_path {run.entities}."
            )

    def _tokenize_prompts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return tokenize(self.experiment.tokenizer, prompts, max_length=MAX_PROMPT_TOKENS + 1)

    def build_task(
        self, model: AlproForPretraining, *, plan: TrainingPlan, progress: Progress
    ) -> PretrainingTask:
        """The losses that are switched on; VTM starts once VTC has warmed up."""
        config = self.config
        objectives = Objectives(
            itc=config.use_itc, itm=config.use_itm, mlm=config.use_mlm, mpm=config.use_mpm
        )
        # Negatives are drawn from this rank's pairs, or from those of all ranks.
        return PretrainingTask(
            model,
            engine=self.experiment.engine,
            normalize=self.experiment.normalize,
            objectives=objectives,
            itm_start_step=1 + math.floor(config.itm_start_ratio * plan.num_train_steps),
            mask_same_video=config.mask_same_video,
            entity_threshold=config.entity_threshold,
            precision=self.experiment.precision,
            allow_missing_videos=config.allow_missing_videos,
            progress=progress,
            negatives_of_all_ranks=config.itm_negatives == GLOBAL,
            grad_cache_size=config.grad_cache_size,
        )
