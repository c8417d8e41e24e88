"""What is the retrieval task's own: its data, its objective, its evaluation."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from src.build.data import (
    Annotations,
    build_normalize,
    build_training_data,
    build_training_set,
    read_annotations,
    training_rows,
)
from src.build.model import build_retrieval_model
from src.build.recipe import Recipe
from src.configs.options import annotation_file
from src.configs.schema import DatasetConfig, RetrievalConfig
from src.datasets.annotations import CaptionRow, read_captions
from src.datasets.retrieval import RetrievalCollate
from src.datasets.tokenization import tokenize
from src.evaluation.report import metrics_table, write_results
from src.evaluation.retrieval import RetrievalEvaluator, RetrievalOutcome
from src.evaluation.running import Progress
from src.modeling.alpro import AlproForRetrieval
from src.tasks.retrieval_task import RetrievalTask
from src.training.precision import usable_precision
from src.training.trainer import TrainingData, TrainingPlan


class RetrievalRecipe(Recipe[RetrievalConfig, CaptionRow, AlproForRetrieval]):
    """Text-to-video retrieval."""

    ROWS = "captions"

    def annotation_path(self, part: DatasetConfig) -> Path:
        """The captions of a set."""
        return Path(annotation_file(part, None))

    def annotations(self, part: DatasetConfig) -> Annotations[CaptionRow]:
        """Read the captions of a set; MSVD's videos are ``.avi``, all others ``.mp4``."""
        names = " ".join(dataset.name for dataset in self.config.train_datasets)
        return read_annotations(
            self.config,
            part,
            path=self.annotation_path(part),
            read=read_captions,
            extension=".avi" if "msvd" in names else ".mp4",
        )

    def training_data(self) -> TrainingData:
        """Pairs of captions and videos."""
        sets, description = [], []
        for part in self.config.train_datasets:
            found = self.annotations(part)
            rows = training_rows(self.config, found)
            num_videos = len({row.video_id for row in rows})
            description.append(
                f"{part.name}: {len(rows)} captions of {num_videos} videos to train on"
            )
            sets.append(build_training_set(self.config, rows, videos=found.videos))
        collate = RetrievalCollate(self.tokenizer, max_length=self.config.max_txt_len)
        return build_training_data(
            self.config, sets, collate=collate, description=description, engine=self.engine
        )

    def build_model(self) -> AlproForRetrieval:
        """ALPRO with a head for matching."""
        return build_retrieval_model(self.resolved)

    def build_evaluator(
        self, model: AlproForRetrieval, *, progress: Progress
    ) -> RetrievalEvaluator:
        """Scoring of texts against videos."""
        config = self.config

        def tokens_of(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
            return tokenize(self.tokenizer, texts, max_length=config.max_txt_len)

        chunk = config.eval_retrieval_batch_size
        return RetrievalEvaluator(
            model,
            tokenize=tokens_of,
            normalize=build_normalize(config, engine=self.engine),
            engine=self.engine,
            precision=usable_precision(config.precision, self.engine.device),
            caption_chunk=config.inference_batch_size if config.do_inference else chunk,
            clip_aggregation=config.score_agg_func,
            top_k=config.retrieval_top_k,
            use_matching=config.use_itm,
            allow_missing_videos=config.allow_missing_videos,
            progress=progress,
        )

    def build_task(
        self, model: AlproForRetrieval, evaluator: RetrievalEvaluator, *, plan: TrainingPlan
    ) -> RetrievalTask:
        """VTC + VTM."""
        config = self.config
        return RetrievalTask(
            model,
            engine=self.engine,
            normalize=build_normalize(config, engine=self.engine),
            evaluator=evaluator,
            use_itc=config.use_itc,
            use_itm=config.use_itm,
            itm_start_step=1 + math.floor(config.itm_start_ratio * plan.num_train_steps),
            mask_same_video=config.mask_same_video,
            validation_batch=config.val_batch_size,
        )

    def results_suffix(self) -> str:
        """Tells re-ranking of a few and no re-ranking from the published way."""
        few = f"_top{self.config.retrieval_top_k}" if self.config.retrieval_top_k > 0 else ""
        return few if self.config.use_itm else f"{few}_vtc"

    def protocol(self) -> dict[str, Any]:
        """Which pairs are re-ranked."""
        return {
            "retrieval_top_k": self.config.retrieval_top_k,
            "matching": self.config.use_itm,
        }

    def write_results(
        self, folder: Path, outcome: RetrievalOutcome, *, protocol: Mapping[str, Any]
    ) -> str:
        """Ranks, and every scored pair."""
        metrics = write_results(folder, outcome, protocol=protocol)
        counts = f"{len(outcome.caption_ids)} captions, {len(outcome.video_ids)} videos"
        return f"{counts}\n{metrics_table(metrics)}"
