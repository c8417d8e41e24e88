"""Retrieval-specific data, objective and evaluation."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from alpro.configs.experiment import GLOBAL
from alpro.datasets.annotations import CaptionRow, read_captions
from alpro.datasets.shared_rows import SharedRows
from alpro.errors import InputError, pluralize
from alpro.evaluation.evaluation_set import Progress
from alpro.experiment.data import Annotations
from alpro.losses import PairLoss
from alpro.modeling.contracts import DualEncoder, Matcher
from alpro.tasks.downstream import DownstreamTask, TrainingItems
from alpro.tasks.retrieval.config import RetrievalConfig
from alpro.tasks.retrieval.evaluation import (
    RetrievalEvaluator,
    RetrievalOutcome,
    metrics_table,
    write_results,
)
from alpro.tasks.retrieval.objective import RetrievalCollate, RetrievalObjective
from alpro.training.objective import TrainingPlan


class Retrieval(DownstreamTask[RetrievalConfig, CaptionRow]):
    """Text-to-video retrieval with any `DualEncoder`; VTM and re-ranking need a `Matcher`."""

    ROW = "caption"

    def read_rows(self, path: Path) -> SharedRows[CaptionRow]:
        return read_captions(path, text_lists=self.config.text_lists)

    def training_items(
        self, annotations: Annotations[CaptionRow], rows: SharedRows[CaptionRow]
    ) -> TrainingItems:
        return TrainingItems(rows, len(rows))

    def build_collate(self) -> RetrievalCollate:
        config = self.config
        return RetrievalCollate(self.experiment.tokenizer, config.max_txt_len, seed=config.seed)

    def build_model(self) -> nn.Module:
        """The family's model.

        Raises:
            InputError: if it cannot match, but `use_itm` is on.
        """
        model = super().build_model()
        assert isinstance(model, DualEncoder), type(model)
        if self.config.use_itm and not isinstance(model, Matcher):
            raise InputError(
                f"use_itm: models of the family {self.config.family} do not match texts with "
                "videos. Set use_itm to 0."
            )
        return model

    def build_evaluator(self, model: Any, *, progress: Progress) -> RetrievalEvaluator:
        config = self.config
        # Training has a key of its own for the batches of its validation.
        chunk = config.eval_retrieval_batch_size
        return RetrievalEvaluator(
            model,
            caption_chunk=config.inference_batch_size if config.do_inference else chunk,
            top_k=config.retrieval_top_k,
            use_matching=config.use_itm,
            dual_softmax=config.dual_softmax,
            clip_aggregation=config.score_agg_func,
            progress=progress,
            **self.experiment.evaluator_arguments(),
        )

    def pair_loss(self) -> PairLoss | None:
        """The family's own contrastive loss; None for VTC."""
        return None

    def build_objective(
        self, model: Any, *, plan: TrainingPlan, progress: Progress
    ) -> RetrievalObjective:
        """VTC + VTM."""
        # VTM starts once VTC has warmed up: hard negatives are meaningless before.
        config, experiment = self.config, self.experiment
        return RetrievalObjective(
            model,
            engine=experiment.engine,
            normalize=experiment.normalize,
            evaluator=self.build_evaluator(model, progress=progress),
            use_itc=config.use_itc,
            use_itm=config.use_itm,
            itm_start_step=1 + math.floor(config.itm_start_ratio * plan.num_train_steps),
            mask_same_video=config.mask_same_video,
            validation_batch=config.val_batch_size,
            pair_loss=self.pair_loss(),
            negatives_of_all_ranks=config.itm_negatives == GLOBAL,
            grad_cache_size=config.grad_cache_size,
        )

    def results_suffix(self) -> str:
        """Suffix that distinguishes non-default retrieval protocols."""
        few = f"_top{self.config.retrieval_top_k}" if self.config.retrieval_top_k > 0 else ""
        return few if self.config.use_itm else f"{few}_vtc"

    def protocol(self) -> dict[str, Any]:
        """Settings that decide which texts there are, and which pairs are re-ranked."""
        config = self.config
        return {
            "retrieval_top_k": config.retrieval_top_k,
            "matching": config.use_itm,
            **({} if config.text_lists == "pairs" else {"text_lists": config.text_lists}),
        }

    def write_results(
        self, folder: Path, outcome: RetrievalOutcome, *, protocol: Mapping[str, Any]
    ) -> str:
        """Ranks, and every scored pair."""
        metrics = write_results(folder, outcome, protocol=protocol)
        captions = pluralize(len(outcome.caption_ids), "caption")
        counts = f"{captions}, {pluralize(len(outcome.video_ids), 'video')}"
        return f"{counts}\n{metrics_table(metrics)}"
