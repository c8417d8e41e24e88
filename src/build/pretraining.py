"""The two stages of pretraining: the prompter, and the model that it teaches."""

import logging
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from src.build.inputs import SetFiles, check_training_inputs
from src.build.model import build_pretraining_model, build_prompter, load_weights
from src.build.pretraining_data import build_training_data, build_validation_set, read_set
from src.build.recipe import Model, Recipe
from src.configs.pretraining import pretraining_file
from src.configs.schema import PretrainConfig, PretrainingConfig, PrompterConfig
from src.datasets.entities import read_entities
from src.datasets.pretraining import PretrainCollate
from src.datasets.tokenization import tokenize
from src.errors import InputError
from src.evaluation.pair_sets import VALIDATION_SEED, PairSet
from src.evaluation.running import Progress
from src.modeling.pretraining import PROMPTER_PREFIX, AlproForPretraining
from src.modeling.prompter import MAX_PROMPT_TOKENS, PROMPT_NAMES, Prompter
from src.modeling.weight_names import StateDict
from src.pretrain.pretraining_task import Objectives, PretrainingTask
from src.pretrain.prompter_task import PrompterTask
from src.training.seeding import seed_everything
from src.training.trainer import TrainingData, TrainingPlan
from src.training.weights import check_num_entities, load_teacher, without_prompts

logger = logging.getLogger(__name__)

Config = TypeVar("Config", bound=PretrainingConfig)

TEACHER_KEY = "teacher_weights_path"
NUM_NAMED = 5  # entities that a message names
ENTITY_PARTS = (f"{PROMPTER_PREFIX}*", "mpm_head.*")  # what only PEM needs of a checkpoint


class PretrainingRecipe(Recipe[Config, Model], Generic[Config, Model]):
    """What both stages share: their data."""

    def check_inputs(self) -> None:
        """Report all files that are missing for training."""
        check_training_inputs(
            self.config,
            sets=[*self.set_files("train_datasets"), *self.set_files("val_datasets")],
            others=self.other_inputs(),
        )

    def set_files(self, key: str) -> list[SetFiles]:
        """Where the parts of the sets are that a key of the config lists."""
        return [
            SetFiles(
                f"{key}.{index}",
                part.name,
                "ann" if part.ann is not None else "txt",
                Path(pretraining_file(part)),
                part.img,
            )
            for index, part in enumerate(getattr(self.config, key))
        ]

    def annotation_files(self) -> list[Path]:
        """Those of all sets that a training run reads."""
        parts = (*self.config.train_datasets, *self.config.val_datasets)
        return [Path(pretraining_file(part)) for part in parts]

    def training_data(self) -> TrainingData:
        """All training sets of the config."""
        sets = [read_set(self.config, part) for part in self.config.train_datasets]
        collate = self.build_collate(seed=self.config.seed)
        return build_training_data(self.config, sets, collate=collate, engine=self.engine)

    def validation(self) -> list[PairSet]:
        """All validation sets of the config; their means are over all pairs."""
        collate = self.build_collate(seed=VALIDATION_SEED)
        sets = [read_set(self.config, part) for part in self.config.val_datasets]
        return [
            build_validation_set(self.config, one, collate=collate, engine=self.engine)
            for one in sets
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


class PrompterRecipe(PretrainingRecipe[PrompterConfig, Prompter]):
    """The first stage: VTC alone makes the teacher of the second."""

    def start_model(self, *, resumes: bool = False) -> Prompter:
        """A prompter with its starting weights; its prompts are made when it teaches."""
        seed_everything(self.config.seed)
        model = build_prompter(self.resolved)
        if not resumes:
            load_weights(model, self.config, may_be_missing=PROMPT_NAMES, prepare=without_prompts)
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
        )


class VideoLanguageRecipe(PretrainingRecipe[PretrainConfig, AlproForPretraining]):
    """The second stage: VTC + VTM + MLM + PEM."""

    def other_inputs(self) -> Mapping[str, Path]:
        """The entities and their teacher, if PEM is trained with."""
        if not self.config.use_mpm:
            return {}
        files = {"entity_file_path": self.config.entity_file_path}
        if self.config.e2e_weights_path is None:  # else it may bring its teacher
            files[TEACHER_KEY] = self.config.teacher_weights_path
        return {key: Path(str(path)) for key, path in files.items()}

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

    def start_model(self, *, resumes: bool = False) -> AlproForPretraining:
        """The model with its starting weights and, for PEM, its teacher.

        A checkpoint of a model that was pretrained with PEM brings its teacher along.
        """
        config = self.config
        seed_everything(config.seed)
        model = build_pretraining_model(
            self.resolved, use_mlm=config.use_mlm, use_mpm=config.use_mpm
        )
        has_teacher = False

        def check(state: StateDict) -> StateDict:
            nonlocal has_teacher
            has_teacher = any(name.startswith(PROMPTER_PREFIX) for name in state)
            path = Path(str(config.e2e_weights_path))
            if has_teacher and config.use_mpm:
                check_num_entities(state, num_entities=config.num_entities, path=path)
            elif config.use_mpm and config.teacher_weights_path is None:
                raise InputError(
                    f"e2e_weights_path: {path} holds no prompter, the teacher of the entity loss. "
                    f"Give {TEACHER_KEY} the checkpoint of one, or set use_mpm to 0."
                )
            return state

        if not resumes:
            load_weights(
                model,
                config,
                may_be_missing=ENTITY_PARTS if config.teacher_weights_path is not None else (),
                prepare=check,
            )
        model.to(self.engine.device)
        if model.prompter is not None and not resumes and not has_teacher:
            self._prepare_teacher(model.prompter)
        return model

    def _prepare_teacher(self, prompter: Prompter) -> None:
        config = self.config
        path = Path(str(config.entity_file_path))
        entities = read_entities(path, num_entities=config.num_entities)
        self._check_known(entities, path=path)
        load_teacher(prompter, Path(str(config.teacher_weights_path)))
        prompter.build_prompts(
            partial(tokenize, self.tokenizer, max_length=MAX_PROMPT_TOKENS + 1), entities
        )
        few = ", ".join(entities[:NUM_NAMED]) + (", ..." if len(entities) > NUM_NAMED else "")
        logger.info("the prompter tells %d entities: %s", len(entities), few)

    def _check_known(self, entities: Sequence[str], *, path: Path) -> None:
        """Refuse entities that the tokenizer cannot spell: their prompts would be alike."""
        ids, _ = self.tokenize(entities)
        unknown = (ids == self.tokenizer.unk_token_id).any(dim=1).tolist()
        if any(unknown):
            named = [name for name, is_unknown in zip(entities, unknown, strict=True) if is_unknown]
            raise InputError(
                f"entity_file_path: {path}: the tokenizer does not know "
                f"{', '.join(map(repr, named[:NUM_NAMED]))}. Take these entities out of the file."
            )

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
        )
