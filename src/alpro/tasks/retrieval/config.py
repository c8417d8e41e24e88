"""Config of text-to-video retrieval."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from alpro.configs.downstream import TABLES, DownstreamConfig, distinct_names
from alpro.configs.experiment import ContrastOptions, MatchingOptions
from alpro.configs.fields import Constraint, option
from alpro.configs.shared_options import MAX_BATCH, MAX_COUNT

RULES: tuple[Constraint, ...] = (
    Constraint(
        ("max_n_example_per_group",),
        lambda size: size != 1,
        "the losses of retrieval pair each video with one caption",
        "Set it to 1; captions of one video are rows of their own.",
    ),
    Constraint(
        ("use_itc", "use_itm"),
        lambda contrastive, matching: not (contrastive or matching),
        "no loss is left to train with",
        "Set use_itc or use_itm to 1.",
    ),
    Constraint(
        ("itm_start_ratio", "use_itc"),
        lambda start, contrastive: start > 0 and not contrastive,
        "before the matching loss sets in there would be no loss",
        "Set use_itc to 1 or itm_start_ratio to 0.",
    ),
    Constraint(
        ("*_datasets.*.txt",),
        lambda path: not isinstance(path, str),
        "retrieval reads its captions from one file per set",
        f"Give txt the path of a file {TABLES}.",
        training_only=True,
    ),
    distinct_names(),
)


_RETRIEVAL_METRICS = tuple(
    f"{direction}_{metric}"
    for direction in ("text2video", "video2text", "text2video_vtc", "video2text_vtc")
    for metric in ("r1", "r5", "r10", "medianR", "meanR")
)


@dataclass(kw_only=True)
class RetrievalConfig(DownstreamConfig, ContrastOptions, MatchingOptions):
    """Text-to-video retrieval: finetuning and inference."""

    SCRIPT: ClassVar[str] = "src/tasks/run_video_retrieval.py"
    TASK: ClassVar[str] = "retrieval"
    TOPIC: ClassVar[str] = "Retrieval"
    CHECKS: ClassVar[tuple[Constraint, ...]] = DownstreamConfig.CHECKS + RULES

    use_itc: bool = option(True, "train with the contrastive loss (VTC)")
    use_itm: bool = option(True, "train with the matching loss (VTM)")
    best_metric: str = option(
        "text2video_r1",
        "validation metric that chooses model_step_best.pt: text2video or video2text, then _vtc"
        " or nothing, then _r1, _r5, _r10, _medianR or _meanR",
        choices=_RETRIEVAL_METRICS,
    )
    text_lists: str = option(
        "pairs",
        "rows with a list of texts: pairs: a pair for each; draw: one pair, whose text is drawn"
        " each epoch (evaluation: the first); paragraph: one text, joined by spaces",
        choices=("pairs", "draw", "paragraph"),
    )
    retrieval_top_k: int = option(
        0,
        "re-rank only the k best by VTC, both directions (0: score all pairs)",
        minimum=0,
        maximum=MAX_COUNT,
    )
    dual_softmax: bool = option(
        False, "report dual softmax (DSL) as well: transductive, it sees all queries at once"
    )
    eval_retrieval_batch_size: int = option(
        256, "texts per batch when a training run evaluates", minimum=1, maximum=MAX_BATCH
    )

    def notices(self, *, infers: bool, stored: Collection[str]) -> list[str]:
        notices = super().notices(infers=infers, stored=stored)
        return notices if infers else notices + self.start_notices(matching=self.use_itm)
