"""What is the retrieval task's own: its data, its objective, its evaluation."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alpro.configs.downstream import annotation_file
from alpro.configs.objectives import ALL_RANKS
from alpro.configs.schema import DownstreamDataset, RetrievalConfig
from alpro.datasets.annotations import CaptionRow, read_captions
from alpro.datasets.retrieval import RetrievalCollate
from alpro.datasets.shared_rows import SharedRows
from alpro.evaluation.eval_mode import Progress
from alpro.evaluation.result_files import metrics_table, write_results
from alpro.evaluation.retrieval import RetrievalEvaluator, RetrievalOutcome
from alpro.experiment.data import Annotations
from alpro.experiment.finetuning_experiment import FinetuningExperiment, TrainingItems
from alpro.experiment.model import build_retrieval_model
from alpro.families.alpro.model import AlproForRetrieval
from alpro.objectives.retrieval_task import RetrievalTask
from alpro.training.plan import TrainingPlan


class RetrievalExperiment(FinetuningExperiment[RetrievalConfig, CaptionRow, AlproForRetrieval]):
    """Text-to-video retrieval."""

    ROWS = "captions"
    MAY_BE_MISSING = ("text_encoder.cls.*",)  # kept, but not used; question answering has none

    def annotation_path(self, part: DownstreamDataset) -> Path:
        """The captions of a set."""
        return Path(annotation_file(part, None))

    def read_rows(self, path: Path) -> SharedRows[CaptionRow]:
        """Read captions."""
        return read_captions(path)

    def data_name(self) -> str:
        """The names of the training sets."""
        return " ".join(dataset.name for dataset in self.config.train_datasets)

    def training_items(
        self,
        found: Annotations[CaptionRow],  # noqa: ARG002
        rows: SharedRows[CaptionRow],
    ) -> TrainingItems:
        """Pairs of a caption and its video."""
        return TrainingItems(rows, len(rows))

    def build_collate(self) -> RetrievalCollate:
        """Makes batches of pairs."""
        return RetrievalCollate(self.tokenizer, max_length=self.config.max_txt_len)

    def build_model(self) -> AlproForRetrieval:
        """ALPRO with a head for matching."""
        return build_retrieval_model(self.resolved)

    def build_evaluator(
        self, model: AlproForRetrieval, *, progress: Progress
    ) -> RetrievalEvaluator:
        """Scoring of texts against videos."""
        config = self.config
        chunk = config.eval_retrieval_batch_size
        return RetrievalEvaluator(
            model,
            caption_chunk=config.inference_batch_size if config.do_inference else chunk,
            top_k=config.retrieval_top_k,
            use_matching=config.use_itm,
            dual_softmax=config.dual_softmax,
            progress=progress,
            **self.evaluator_arguments(),
        )

    def task_with(
        self, model: AlproForRetrieval, evaluator: RetrievalEvaluator, *, plan: TrainingPlan
    ) -> RetrievalTask:
        """VTC + VTM."""
        config = self.config
        return RetrievalTask(
            model,
            engine=self.engine,
            normalize=self.normalize,
            evaluator=evaluator,
            use_itc=config.use_itc,
            use_itm=config.use_itm,
            itm_start_step=1 + math.floor(config.itm_start_ratio * plan.num_train_steps),
            mask_same_video=config.mask_same_video,
            validation_batch=config.val_batch_size,
            negatives_of_all_ranks=config.itm_negatives == ALL_RANKS,
            grad_cache_size=config.grad_cache_size,
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
