"""The second stage of ALPRO's pretraining, taught by the prompter (ALPRO section 3)."""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import cast

from torch import Tensor

from alpro.configs.experiment import GLOBAL
from alpro.datasets.tokenization import tokenize
from alpro.distributed.engine import autocast
from alpro.errors import InputError, listed
from alpro.evaluation.evaluation_set import Progress
from alpro.experiment.experiment import Experiment, TaskDefinition
from alpro.experiment.weights import load_checkpoint
from alpro.families.alpro.checkpoint import ROOTS
from alpro.families.alpro.config import VideoEncoderConfig
from alpro.families.alpro.family import CHECKPOINT
from alpro.families.alpro.model import shared_parts
from alpro.families.alpro.pretraining_model import (
    ENTITY_HEAD_OUTPUT,
    LANGUAGE_HEAD,
    MAX_PROMPT_TOKENS,
    PROMPT_NAMES,
    PROMPTER_PREFIX,
    UNUSED_BY_PROMPTER,
    AlproForPretraining,
    Prompter,
    build_prompter,
    check_prompts,
    without_prompts,
)
from alpro.families.alpro.pretraining_objective import (
    Objectives,
    PretrainingObjective,
    predict_entity_pairs,
)
from alpro.families.family import Architecture, TaskSpec
from alpro.modeling.bert import SplitBert
from alpro.tasks.pretraining.annotations import read_entities
from alpro.tasks.pretraining.batches import PretrainBatch
from alpro.tasks.pretraining.config import PretrainConfig
from alpro.tasks.pretraining.data import PretrainingData
from alpro.training.objective import TrainingPlan
from alpro.training.run_directory import run_directory_of
from alpro.training.state_dicts import read_shapes

logger = logging.getLogger(__name__)

TEACHER_KEY = "teacher_weights_path"
ENTITY_PARTS = (f"{PROMPTER_PREFIX}*", "mpm_head.*")  # parameters that only PEM needs


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

    def build_objective(
        self, model: AlproForPretraining, *, plan: TrainingPlan, progress: Progress
    ) -> PretrainingObjective:
        """The losses that are switched on; VTM starts once VTC has warmed up."""
        config = self.config
        objectives = Objectives(
            itc=config.use_itc, itm=config.use_itm, mlm=config.use_mlm, mpm=config.use_mpm
        )
        # Negatives are drawn from this rank's pairs, or from those of all ranks.
        return PretrainingObjective(
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


def build_pretraining_model(
    config: PretrainConfig, architecture: Architecture
) -> AlproForPretraining:
    """The pretraining model, randomly initialised; PEM needs a prompter."""
    text = partial(SplitBert, train_mlm_head=config.use_mlm)
    return AlproForPretraining(
        **shared_parts(config, architecture, text),
        prompter=build_prompter(config, architecture) if config.use_mpm else None,
    )


def load_teacher(prompter: Prompter, path: Path) -> None:
    """Fill the prompter of pretraining from a checkpoint, all but its prompts.

    Any checkpoint with both encoders will do. Of a pretraining checkpoint the model itself becomes
    the teacher, not the prompter that taught it.

    Raises:
        InputError: if the file is no checkpoint or of another architecture.
    """
    # Errors name the config key of the teacher.
    try:
        load_checkpoint(
            prompter,
            path,
            layout=CHECKPOINT,
            allowed_missing=UNUSED_BY_PROMPTER,
            silently_missing=PROMPT_NAMES,
            prepare=without_prompts,
        )
    except InputError as error:
        raise InputError(f"teacher_weights_path: {error}") from error
    logger.info("%s: its prompts are built from the list of entities", path)


def check_num_entities(
    shapes: Mapping[str, Sequence[int]], *, num_entities: int, path: Path
) -> None:
    """Check that a pretraining checkpoint, of these shapes, has as many entities as the model.

    Raises:
        InputError: if it has another number.
    """
    # The entity head and both prompt buffers have a row for each entity.
    for name in (ENTITY_HEAD_OUTPUT, *(PROMPTER_PREFIX + name for name in PROMPT_NAMES)):
        if name in shapes and shapes[name][0] != num_entities:
            there = shapes[name][0]
            raise InputError(
                f"e2e_weights_path: {path} was pretrained with {there} entities, num_entities is "
                f"{num_entities}. Set num_entities to {there}, with the list of entities that it "
                "was trained with as entity_file_path."
            )


TASK = TaskSpec(definition=VideoLanguagePretraining, build_model=build_pretraining_model)
