"""Data sets of pretraining, for any objective."""

from pathlib import Path
from typing import Any

from alpro.evaluation.evaluation_set import VALIDATION_SEED
from alpro.experiment.experiment import Data, Experiment
from alpro.experiment.preflight import DatasetPaths
from alpro.tasks.pretraining.batches import PretrainCollate
from alpro.tasks.pretraining.config import PretrainingConfig
from alpro.tasks.pretraining.datasets import (
    CaptionedSet,
    build_mixture,
    build_validation_set,
    load_dataset,
)
from alpro.tasks.pretraining.options import media_of, pretraining_file
from alpro.tasks.pretraining.validation import PairSet
from alpro.training.objective import TrainingData
from alpro.training.run_directory import RunDirectory, read_stored


class PretrainingData(Data):
    """The data sets of a pretraining experiment."""

    _config: PretrainingConfig

    def __init__(
        self,
        experiment: Experiment[Any],
        *,
        mlm_probability: float | None = None,
        patches: tuple[int, int] | None = None,
    ) -> None:
        """Configure the masks of words and regions; None for those that no loss needs.

        `patches` are the patches per side of a frame, and the pixels of each, for the regions.
        """
        super().__init__(experiment)
        self._mlm_probability = mlm_probability
        self._patches = patches

    def paths(self, key: str) -> list[DatasetPaths]:
        return [
            DatasetPaths(
                f"{key}.{index}",
                part.name,
                "ann" if part.ann is not None else "txt",
                Path(pretraining_file(part)),
                part.img,
                holds_videos=media_of(part) == "video",
            )
            for index, part in enumerate(getattr(self._config, key))
        ]

    def read(self, key: str) -> list[CaptionedSet]:
        """Read the sets that a key of the config lists."""
        config = self._config
        output = RunDirectory(Path(config.output_dir), rank=self._experiment.engine.rank)
        # Looking for images takes minutes: a run that resumes has done it, unless sets changed.
        starts = config.overwrite or config.dry_run or not output.restore_files()
        current = self._experiment.resolved.to_json()[key]
        looks = starts or read_stored(output.args).get(key) != current
        return [
            load_dataset(config, part, key=f"{key}.{index}", looks_for_images=looks)
            for index, part in enumerate(getattr(config, key))
        ]

    def training(self) -> TrainingData:
        """All training sets; each batch comes from one of them."""
        collate, engine = self.collate(seed=self._config.seed), self._experiment.engine
        return build_mixture(
            self._config, self.read("train_datasets"), collate=collate, engine=engine
        )

    def validation(self) -> list[PairSet]:
        """All validation sets; metrics are means over the pairs of all."""
        collate, engine = self.collate(seed=VALIDATION_SEED), self._experiment.engine
        return [
            build_validation_set(self._config, one, collate=collate, engine=engine)
            for one in self.read("val_datasets")
        ]

    def describe(self, data: PairSet) -> str:
        return f"{data.name} ({data.annotations}): {len(data.video_ids)} pairs"

    def collate(self, *, seed: int) -> PretrainCollate:
        """The collate function for pairs, with masks where losses need them."""
        return PretrainCollate(
            self._experiment.tokenizer,
            max_length=self._config.max_txt_len,
            mlm_probability=self._mlm_probability,
            patches=self._patches,
            seed=seed,
        )
