"""The two stages of pretraining: the prompter, and the model that it teaches."""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

from torch import Tensor

from alpro.configs.objectives import ALL_RANKS
from alpro.configs.pretraining import media_of, pretraining_file
from alpro.configs.schema import PretrainConfig, PretrainingConfig
from alpro.datasets.entities import read_entities
from alpro.datasets.pretraining import PretrainCollate
from alpro.datasets.tokenization import tokenize
from alpro.errors import InputError
from alpro.evaluation.eval_mode import Progress
from alpro.experiment.experiment import Experiment, Model
from alpro.experiment.model import build_pretraining_model, load_weights
from alpro.experiment.preflight import DatasetPaths, check_training_inputs
from alpro.experiment.pretraining_data import (
    CaptionedSet,
    build_mixture,
    build_validation_set,
    load_dataset,
)
from alpro.families.alpro.pretrained import check_num_entities, load_teacher
from alpro.families.alpro.pretraining_model import PROMPTER_PREFIX, AlproForPretraining
from alpro.families.alpro.pretraining_task import Objectives, PretrainingTask
from alpro.families.alpro.prompter import (
    LANGUAGE_HEAD,
    MAX_PROMPT_TOKENS,
    Prompter,
    check_prompts,
)
from alpro.objectives.validation import VALIDATION_SEED, PairSet
from alpro.quoting import listed
from alpro.training.plan import TrainingData, TrainingPlan
from alpro.training.run_directory import RunDirectory, read_stored, run_directory_of
from alpro.training.seeding import seed_everything
from alpro.training.state_dicts import read_shapes

logger = logging.getLogger(__name__)

Config = TypeVar("Config", bound=PretrainingConfig)

TEACHER_KEY = "teacher_weights_path"
ENTITY_PARTS = (f"{PROMPTER_PREFIX}*", "mpm_head.*")  # what only PEM needs of a checkpoint


class PretrainingExperiment(Experiment[Config, Model], Generic[Config, Model]):
    """What both stages share: their data."""

    def check_inputs(self) -> None:
        """Report all files that are missing for training."""
        check_training_inputs(
            self.config,
            sets=[*self.set_files("train_datasets"), *self.set_files("val_datasets")],
            others=self.other_inputs(),
            resumes=self.beginning.resumes,
        )

    def set_files(self, key: str) -> list[DatasetPaths]:
        """Where the parts of the sets are that a key of the config lists."""
        return [
            DatasetPaths(
                f"{key}.{index}",
                part.name,
                "ann" if part.ann is not None else "txt",
                Path(pretraining_file(part)),
                part.img,
                holds_videos=media_of(part) == "video",
            )
            for index, part in enumerate(getattr(self.config, key))
        ]

    def read_sets(self, key: str) -> list[CaptionedSet]:
        """The sets that a key of the config lists."""
        config = self.config
        output = RunDirectory(Path(config.output_dir), rank=self.engine.rank)
        begins = config.overwrite or config.dry_run or not output.restore_files()
        looks = begins or read_stored(output.args).get(key) != self.resolved.to_json()[key]
        parts = enumerate(getattr(config, key))
        return [
            load_dataset(config, part, key=f"{key}.{index}", looks_for_images=looks)
            for index, part in parts
        ]

    def annotation_files(self) -> list[Path]:
        """Those of all sets that a training run reads."""
        parts = (*self.config.train_datasets, *self.config.val_datasets)
        return [Path(pretraining_file(part)) for part in parts]

    def training_data(self) -> TrainingData:
        """All training sets of the config."""
        sets = self.read_sets("train_datasets")
        collate = self.build_collate(seed=self.config.seed)
        return build_mixture(self.config, sets, collate=collate, engine=self.engine)

    def validation(self) -> list[PairSet]:
        """All validation sets of the config; their means are over all pairs."""
        collate = self.build_collate(seed=VALIDATION_SEED)
        return [
            build_validation_set(self.config, one, collate=collate, engine=self.engine)
            for one in self.read_sets("val_datasets")
        ]

    def describe(self, validation: list[PairSet]) -> list[str]:
        """How many pairs a run is validated on."""
        return [f"{one.name} ({one.annotations}): {len(one.video_ids)} pairs" for one in validation]

    def build_collate(self, *, seed: int) -> PretrainCollate:
        """Makes batches of pairs; words are hidden and regions drawn where losses ask for them."""
        return PretrainCollate(
            self.tokenizer,
            max_length=self.config.max_txt_len,
            mlm_probability=self.mlm_probability,
            patches=self.patches,
            seed=seed,
        )

    @property
    def mlm_probability(self) -> float | None:
        """Share of the words that are hidden; None where no loss asks for them."""
        return None

    @property
    def patches(self) -> tuple[int, int] | None:
        """Patches per side and the pixels of each; None where no loss asks for regions."""
        return None


class VideoLanguageExperiment(PretrainingExperiment[PretrainConfig, AlproForPretraining]):
    """The second stage: VTC + VTM + MLM + PEM."""

    def other_inputs(self) -> Mapping[str, Path]:
        """The entities, and the teacher that is made of them, if PEM is trained with."""
        config = self.config
        if not config.use_mpm:
            return {}
        files = {"entity_file_path": Path(str(config.entity_file_path))}
        needs_teacher = not self.beginning.resumes and self.makes_teacher
        if needs_teacher and config.teacher_weights_path is not None:
            files[TEACHER_KEY] = Path(config.teacher_weights_path)
        return files

    def check_inputs(self) -> None:
        """Report all that is missing, then what is wrong with the entities or their teacher."""
        super().check_inputs()
        config = self.config
        if not config.use_mpm or self.beginning.resumes:
            return
        self._check_teacher()
        self._check_entities()
        if not self.makes_teacher and config.teacher_weights_path and self.engine.rank == 0:
            path = config.e2e_weights_path
            logger.warning("%s has no effect: %s brings its own prompter", TEACHER_KEY, path)

    @cached_property
    def entities(self) -> tuple[str, ...]:
        """What the prompter tells apart."""
        path = Path(str(self.config.entity_file_path))
        return read_entities(path, num_entities=self.config.num_entities)

    @cached_property
    def start_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes in the checkpoint that the model starts from; of none where none is."""
        path = self.config.e2e_weights_path
        return read_shapes(Path(path)) if path is not None and os.path.isfile(path) else {}

    @property
    def makes_teacher(self) -> bool:
        """Whether PEM needs a teacher, and the model does not start with one."""
        return self.config.use_mpm and not any(
            name.startswith(PROMPTER_PREFIX) for name in self.start_shapes
        )

    @property
    def mlm_probability(self) -> float | None:
        """Share of the words that are hidden, for MLM."""
        return self.config.mlm_probability if self.config.use_mlm else None

    @property
    def patches(self) -> tuple[int, int] | None:
        """Patches per side and the pixels of each, for PEM."""
        if not self.config.use_mpm:
            return None
        patch_size = self.resolved.video_encoder.patch_size
        return self.config.crop_img_size // patch_size, patch_size

    def build_model(self) -> AlproForPretraining:
        """The model and, for PEM, its teacher, with random weights."""
        config = self.config
        return build_pretraining_model(
            self.resolved, use_mlm=config.use_mlm, use_mpm=config.use_mpm
        )

    def start_model(self, *, resumes: bool = False) -> AlproForPretraining:
        """The model with its starting weights and, for PEM, its teacher.

        A checkpoint of a model that was pretrained with PEM brings its teacher along.
        """
        config = self.config
        seed_everything(config.seed)
        model = self.build_model()
        if not resumes:
            if config.use_mpm:
                self._check_teacher()
            missing = ENTITY_PARTS if self.makes_teacher else ()
            unused = () if config.use_mlm else (LANGUAGE_HEAD,)
            load_weights(model, config, allowed_missing=(*missing, *unused))
        model.to(self.engine.device)
        if model.prompter is not None and not resumes and self.makes_teacher:
            self._prepare_teacher(model.prompter)
        return model

    def _check_teacher(self) -> None:
        """Refuse to start with a teacher of another number of entities, or without any."""
        config, path = self.config, Path(str(self.config.e2e_weights_path))
        if not self.makes_teacher:
            check_num_entities(self.start_shapes, num_entities=config.num_entities, path=path)
        elif config.teacher_weights_path is None:
            raise InputError(
                f"e2e_weights_path: {path} holds no prompter, the teacher of the entity loss. "
                f"Give {TEACHER_KEY} the checkpoint of one, or set use_mpm to 0."
            )

    def _check_entities(self) -> None:
        """Refuse a list of which no teacher can be made, or another than the teacher's own.

        Entities that the tokenizer cannot spell would have prompts that are alike.
        """
        path = self.config.entity_file_path
        ids, _ = self.tokenize(self.entities)
        unknown = (ids == self.tokenizer.unk_token_id).any(dim=1).tolist()
        if any(unknown):
            named = [repr(name) for name, bad in zip(self.entities, unknown, strict=True) if bad]
            raise InputError(
                f"entity_file_path: {path}: the tokenizer does not know "
                f"{listed(named)}. Take these entities out of the file."
            )
        check_prompts(self._tokenize_prompts, self.entities)
        if not self.makes_teacher:
            self._compare_entities()

    def _compare_entities(self) -> None:
        """Refuse entities that are not those of the checkpoint, as far as its run tells."""
        config, checkpoint = self.config, self.config.e2e_weights_path
        run = run_directory_of(Path(str(checkpoint)))
        if run is None or not run.entities.is_file():
            return
        before = read_entities(run.entities, num_entities=config.num_entities)
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
        return tokenize(self.tokenizer, prompts, max_length=MAX_PROMPT_TOKENS + 1)

    def _prepare_teacher(self, prompter: Prompter) -> None:
        load_teacher(prompter, Path(str(self.config.teacher_weights_path)))
        prompter.build_prompts(self._tokenize_prompts, self.entities)
        few = listed(self.entities)
        logger.info("the prompter predicts %d entities: %s", len(self.entities), few)

    def build_task(
        self, model: AlproForPretraining, *, plan: TrainingPlan, progress: Progress
    ) -> PretrainingTask:
        """The losses that are switched on."""
        config = self.config
        return PretrainingTask(
            model,
            engine=self.engine,
            normalize=self.normalize,
            objectives=Objectives(
                itc=config.use_itc, itm=config.use_itm, mlm=config.use_mlm, mpm=config.use_mpm
            ),
            itm_start_step=1 + math.floor(config.itm_start_ratio * plan.num_train_steps),
            mask_same_video=config.mask_same_video,
            entity_threshold=config.entity_threshold,
            precision=self.precision,
            allow_missing_videos=config.allow_missing_videos,
            progress=progress,
            negatives_of_all_ranks=config.itm_negatives == ALL_RANKS,
            grad_cache_size=config.grad_cache_size,
        )
