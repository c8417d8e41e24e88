"""Text-to-video and video-to-text retrieval, for validation and inference alike.

Shapes: P captions, V videos, C clips of each, N patches, D width, E embedding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alpro.datasets.annotations import CaptionRow
from alpro.datasets.video_datasets import UnreadableVideo
from alpro.distributed.engine import autocast
from alpro.evaluation.encoding import (
    EncodedTexts,
    EncodedVideos,
    aggregate_clips,
    chunks,
    encode_texts,
    encode_videos,
    score_clips,
)
from alpro.evaluation.evaluation_set import (
    EvaluationSet,
    Evaluator,
    check_unreadable,
    evaluation_mode,
    readable_rows,
)
from alpro.modeling.contracts import MATCH, DualEncoder, Matcher, VideoFeatures
from alpro.tasks.retrieval.metrics import dual_softmax_metrics, retrieval_metrics
from alpro.training.atomic_io import write_json, write_records


def pairs_to_score(similarity: np.ndarray, *, top_k: int) -> np.ndarray:
    """Select the pairs to re-rank: the union of both directions' `top_k` best, 0 for all pairs.

    (P, V) VTC similarities to (P, V) bool.
    """
    if top_k == 0:
        return np.ones(similarity.shape, dtype=bool)
    # Of equal similarities the first ones are taken.
    chosen = np.zeros(similarity.shape, dtype=bool)
    best_videos = np.argsort(-similarity, axis=1, kind="stable")[:, :top_k]  # (P, k)
    best_captions = np.argsort(-similarity, axis=0, kind="stable")[:top_k]  # (k, V)
    np.put_along_axis(chosen, best_videos, True, axis=1)
    np.put_along_axis(chosen, best_captions, True, axis=0)
    return chosen


def ranking_scores(scores: np.ndarray, similarity: np.ndarray, *, scored: np.ndarray) -> np.ndarray:
    """(P, V) scores to rank by: pairs not ``scored`` follow all others, in the order of VTC."""
    if scored.all():
        return scores
    # The best of the others comes 1 below the worst score.
    below = scores[scored].min() - 1.0 - (similarity.max() - similarity.astype(np.float64))
    return np.where(scored, scores, below)


@dataclass(frozen=True, slots=True)
class RetrievalOutcome:
    """Outcome of retrieval over one set."""

    caption_ids: Sequence[int]
    """(P,) row numbers of the captions whose video could be read."""
    video_ids: Sequence[str]
    """(V,) ids of the videos that could be read."""
    video_of_caption: Sequence[int]
    """(P,) column of each caption's video."""
    similarity: np.ndarray
    """(P, V) float32, VTC similarity divided by the temperature."""
    scores: np.ndarray
    """(P, V) float64, probability of a match; meaningful where ``scored``."""
    scored: np.ndarray
    """(P, V) bool, pairs scored by the fusion encoder."""
    unreadable: Sequence[UnreadableVideo]
    temperature: float = 1.0
    """Divisor of ``similarity``."""
    dual_softmax: bool = False
    """Report transductive numbers as well."""

    def metrics(self) -> dict[str, dict[str, float]]:
        """Metrics of both directions, re-ranked under the original's names, and by VTC alone."""
        # VTC alone also stands in for re-ranking if nothing was scored.
        by_vtc = retrieval_metrics(self.similarity, self.video_of_caption)
        ranked = by_vtc
        if self.scored.any():
            order = ranking_scores(self.scores, self.similarity, scored=self.scored)
            ranked = retrieval_metrics(order, self.video_of_caption)
        rows = {**ranked, **{f"{direction}_vtc": values for direction, values in by_vtc.items()}}
        # Transductive numbers never replace others.
        if self.dual_softmax:
            cosine = self.similarity * self.temperature
            transductive = dual_softmax_metrics(cosine, self.video_of_caption)
            rows |= {f"{direction}_dsl": values for direction, values in transductive.items()}
        return rows

    def flat_metrics(self) -> dict[str, float]:
        """The same numbers in one level: ``text2video_r1``, ``text2video_vtc_r1``, ..."""
        return {
            f"{direction}_{name}": value
            for direction, values in self.metrics().items()
            for name, value in values.items()
        }

    def results(self) -> list[dict[str, Any]]:
        """One record per scored pair, in the original's shape, scores unrounded.

        ``score`` is the probability of a match, ``sim`` the VTC similarity divided by the
        temperature. With ``use_itm 0`` all pairs are listed, and ``score`` is the similarity too.
        """
        # List the scored pairs by video.
        by_vtc_only = not self.scored.any()
        listed = np.ones_like(self.scored) if by_vtc_only else self.scored
        scores = self.similarity if by_vtc_only else self.scores
        return [
            {
                "vid_id": self.video_ids[column],
                "txt_id": int(self.caption_ids[row]),
                "score": float(scores[row, column]),
                "sim": float(self.similarity[row, column]),
            }
            for column, row in zip(*np.nonzero(listed.T), strict=True)
        ]


@dataclass(eq=False)
class RetrievalEvaluator(Evaluator):
    """Encodes each video and caption of a set once and scores the pairs."""

    model: DualEncoder
    _: KW_ONLY
    caption_chunk: int  # captions fused with a video at once
    top_k: int  # see :func:`pairs_to_score`
    use_matching: bool  # re-rank by matching; needs a `Matcher`
    dual_softmax: bool = False  # report transductive numbers as well

    def __post_init__(self) -> None:
        assert isinstance(self.model, Matcher) or not self.use_matching

    def encode(self, data: EvaluationSet[CaptionRow]) -> tuple[EncodedVideos, EncodedTexts]:
        """Encode the videos and captions of a set, in evaluation mode."""
        with evaluation_mode(self.model):
            # Re-ranking needs the tokens of videos, VTC only their embeddings.
            videos = encode_videos(
                self.model,
                self.progress(data.loader, "encoding videos", "batch"),
                num_videos=len(data.video_ids),
                normalize=self.normalize,
                engine=self.engine,
                precision=self.precision,
                keep_tokens=self.use_matching,
            )
            # Captions of unreadable videos are encoded too, and left out when pairs are scored.
            texts = encode_texts(
                self.model,
                [row.caption for row in data.rows],
                tokenize=self.tokenize,
                chunk_size=self.caption_chunk,
                engine=self.engine,
                precision=self.precision,
            )
        check_unreadable(data, videos.unreadable, allowed=self.allow_missing_videos)
        return videos, texts

    @torch.inference_mode()
    def score(
        self, data: EvaluationSet[CaptionRow], videos: EncodedVideos, texts: EncodedTexts
    ) -> RetrievalOutcome:
        """Score the pairs of an encoded set."""
        # Rows and columns of the captions and videos that could be read.
        rows = readable_rows(data, videos.unreadable)
        lost = {video.video_id for video in videos.unreadable}
        columns = [c for c, video_id in enumerate(data.video_ids) if video_id not in lost]
        similarity = self._similarity(videos, texts)[np.ix_(rows, columns)]
        # Re-rank the best pairs by the fusion encoder.
        scored = np.zeros(similarity.shape, dtype=bool)
        scores = np.zeros(similarity.shape, dtype=np.float64)
        if self.use_matching:
            scored = pairs_to_score(similarity, top_k=self.top_k)
            scores = self._match(videos, texts, rows=rows, columns=columns, scored=scored)
        place = {data.video_ids[column]: index for index, column in enumerate(columns)}
        return RetrievalOutcome(
            caption_ids=rows,
            video_ids=[data.video_ids[column] for column in columns],
            video_of_caption=[place[data.rows[row].video_id] for row in rows],
            similarity=similarity,
            scores=scores,
            scored=scored,
            unreadable=videos.unreadable,
            temperature=float(self.model.temperature().detach()),
            dual_softmax=self.dual_softmax,
        )

    def _similarity(self, videos: EncodedVideos, texts: EncodedTexts) -> np.ndarray:
        """(P, V) float32 VTC similarity divided by the temperature."""
        # Compare the captions with each clip, then aggregate the clips of a video.
        num_videos, num_clips, _ = videos.embeddings.shape
        of_clips = texts.embeddings @ videos.embeddings.flatten(0, 1).T  # (P, V*C)
        temperature = float(self.model.temperature().detach())
        of_clips = of_clips.unflatten(1, (num_videos, num_clips)) / temperature
        return aggregate_clips(of_clips, how=self.clip_aggregation, dim=2).numpy()

    def _match(
        self,
        videos: EncodedVideos,
        texts: EncodedTexts,
        *,
        rows: Sequence[int],
        columns: Sequence[int],
        scored: np.ndarray,
    ) -> np.ndarray:
        """(P, V) probability of a match; each rank scores the videos that it has encoded."""
        # Score this rank's videos against their candidates.
        own: dict[int, np.ndarray] = {}
        mine = [index for index, column in enumerate(columns) if column in videos.own]
        with evaluation_mode(self.model):
            for index in self.progress(mine, "scoring pairs", "video"):
                wanted = [rows[row] for row in np.flatnonzero(scored[:, index]).tolist()]
                own[index] = self._match_one(texts, wanted, videos.select([columns[index]]))
        # Join the columns of all ranks.
        scores = np.zeros(scored.shape, dtype=np.float64)
        for part in self.engine.gather_objects(own):
            for index, column_scores in part.items():
                scores[scored[:, index], index] = column_scores
        return scores

    def _match_one(
        self, texts: EncodedTexts, captions: Sequence[int], video: VideoFeatures
    ) -> np.ndarray:
        """(len(captions),) float64 probabilities that a video matches each caption."""
        assert isinstance(self.model, Matcher)
        scores = []
        for piece in chunks(len(captions), size=self.caption_chunk):
            text = texts.select([captions[i] for i in piece])
            with autocast(self.precision, self.engine.device):
                logits = score_clips(
                    partial(self.model.match, text),
                    video.expand(len(piece)),
                    how=self.clip_aggregation,
                )  # (P', 2)
            # float64: in float32 confident matches all become 1.0, and ties
            scores.append(logits.double().softmax(dim=-1)[:, MATCH].cpu().numpy())
        return np.concatenate(scores) if scores else np.zeros(0)

    def run(self, data: EvaluationSet[CaptionRow]) -> RetrievalOutcome:
        """Encode and score a set."""
        return self.score(data, *self.encode(data))


COLUMNS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "medianR": "median rank", "meanR": "mean rank"}
ROWS = {
    "text2video": "text to video",
    "text2video_vtc": "text to video, VTC only",
    "video2text": "video to text",
    "video2text_vtc": "video to text, VTC only",
    "text2video_dsl": "text to video, DSL*",
    "video2text_dsl": "video to text, DSL*",
}


def write_results(
    folder: Path, outcome: RetrievalOutcome, *, protocol: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    """Write ``results.json`` and ``scores.json`` in the original's shapes, and return the metrics.

    Counts are added to the protocol, which says how the outcome was obtained.
    """
    # The protocol also counts what the numbers are about.
    metrics = outcome.metrics()
    counts = {
        "num_captions": len(outcome.caption_ids),
        "num_videos": len(outcome.video_ids),
        "num_unreadable_videos": len(outcome.unreadable),
        "num_scored_pairs": int(outcome.scored.sum()),
    }
    write_records(folder / "results.json", outcome.results())
    write_json(folder / "scores.json", {**metrics, "protocol": {**counts, **protocol}})
    return metrics


def metrics_table(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Both directions, re-ranked and by VTC alone, as a text table."""
    head = f"{'':26}" + "".join(f"{title:>13}" for title in COLUMNS.values())
    lines = [
        f"{title:26}" + "".join(f"{metrics[name][key]:13.1f}" for key in COLUMNS)
        for name, title in ROWS.items()
        if name in metrics
    ]
    if "text2video_dsl" in metrics:
        lines.append("* dual softmax is transductive: it uses all queries of the set at once")
    return "\n".join([head, *lines])
