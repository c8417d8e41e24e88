"""Text-to-video and video-to-text retrieval, for validation and inference alike.

Shapes: C captions, V videos, E embedding.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from src.datasets.annotations import CaptionRow
from src.datasets.retrieval import VideoBatch
from src.datasets.unreadable import UnreadableVideo
from src.distributed.engine import Engine
from src.errors import InputError
from src.evaluation.encoding import (
    EncodedTexts,
    EncodedVideos,
    Tokenize,
    chunks,
    encode_texts,
    encode_videos,
)
from src.evaluation.pairs import pairs_to_score, ranking_scores
from src.metrics.retrieval import retrieval_metrics
from src.modeling.alpro import MATCH, AlproForRetrieval, VideoFeatures
from src.training.precision import autocast

logger = logging.getLogger(__name__)

Progress = Callable[[Iterable[Any], str, str], Iterator[Any]]  # items, description, unit


@dataclass(frozen=True, slots=True)
class RetrievalSet:
    """Captions and the videos they describe."""

    name: str
    annotations: Path
    folder: Path
    """Where the videos are."""
    rows: Sequence[CaptionRow]
    """C captions; a caption's row number is its id."""
    video_ids: Sequence[str]
    """V distinct videos in order of first appearance."""
    video_chunks: Sequence[range]
    """Positions of the videos that are encoded together, all ranks' chunks in order."""
    loader: DataLoader[VideoBatch]
    """This rank's chunks of the videos."""


@dataclass(frozen=True, slots=True)
class RetrievalOutcome:
    """What retrieval over one set gave."""

    caption_ids: Sequence[int]
    """(C,) row numbers of the captions whose video could be read."""
    video_ids: Sequence[str]
    """(V,) ids of the videos that could be read."""
    video_of_caption: Sequence[int]
    """(C,) column of each caption's video."""
    similarity: np.ndarray
    """(C, V) float32, VTC similarity divided by the temperature."""
    scores: np.ndarray
    """(C, V) float64, probability of a match; meaningful where ``scored``."""
    scored: np.ndarray
    """(C, V) bool, pairs that the fusion encoder has scored."""
    unreadable: Sequence[UnreadableVideo]

    def metrics(self) -> dict[str, dict[str, float]]:
        """Both directions, re-ranked under the original's names and by VTC alone beside them."""
        by_vtc = retrieval_metrics(self.similarity, self.video_of_caption)
        ranked = by_vtc
        if self.scored.any():
            order = ranking_scores(self.scores, self.similarity, scored=self.scored)
            ranked = retrieval_metrics(order, self.video_of_caption)
        return {**ranked, **{f"{direction}_vtc": values for direction, values in by_vtc.items()}}

    def flat_metrics(self) -> dict[str, float]:
        """The same numbers in one level: ``text2video_r1``, ``text2video_vtc_r1``, ..."""
        return {
            f"{direction}_{name}": value
            for direction, values in self.metrics().items()
            for name, value in values.items()
        }

    def results(self) -> list[dict[str, Any]]:
        """One record for each scored pair, in the original's shape, scores unrounded.

        ``score`` is the probability of a match and ``sim`` the VTC similarity divided by the
        temperature. Where no pair was scored (``use_itm 0``), every pair is listed, and ``score``
        is the similarity too.
        """
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


def silent_progress(
    items: Iterable[Any],
    description: str,  # noqa: ARG001
    unit: str,  # noqa: ARG001
) -> Iterator[Any]:
    """The progress display that shows nothing."""
    return iter(items)


class RetrievalEvaluator:
    """Encodes each video and caption of a set once and scores the pairs."""

    def __init__(
        self,
        model: AlproForRetrieval,
        *,
        tokenize: Tokenize,
        normalize: Callable[[Tensor], Tensor],
        engine: Engine,
        precision: str,
        caption_chunk: int,
        top_k: int,
        use_matching: bool,
        allow_missing_videos: bool,
        progress: Progress = silent_progress,
    ) -> None:
        """Collect what stays the same from set to set.

        Args:
            model: what is evaluated.
            tokenize: texts to (ids, mask).
            normalize: uint8 frames to what the model expects.
            engine: the job.
            precision: number format of the forward pass.
            caption_chunk: captions fused with a video at once.
            top_k: pairs to score, see :func:`pairs_to_score`.
            use_matching: false ranks by VTC alone.
            allow_missing_videos: leave out unreadable videos, instead of an error.
            progress: shows a progress bar over an iterable.
        """
        self.model = model
        self._tokenize = tokenize
        self._normalize = normalize
        self._engine = engine
        self._precision = precision
        self._caption_chunk = caption_chunk
        self._top_k = top_k
        self._use_matching = use_matching
        self._allow_missing = allow_missing_videos
        self._progress = progress

    def encode(self, data: RetrievalSet) -> tuple[EncodedVideos, EncodedTexts]:
        """Features of the set's videos and captions; the model is in evaluation mode meanwhile."""
        with evaluation_mode(self.model):
            videos = encode_videos(
                self.model,
                data.loader,
                num_videos=len(data.video_ids),
                normalize=self._normalize,
                engine=self._engine,
                precision=self._precision,
                keep_tokens=self._use_matching,
                progress=lambda batches: self._progress(batches, "encoding videos", "batch"),
            )
            texts = encode_texts(
                self.model,
                [row.caption for row in data.rows],
                tokenize=self._tokenize,
                chunk_size=self._caption_chunk,
                engine=self._engine,
                precision=self._precision,
            )
        self._check_unreadable(data, videos.unreadable)
        return videos, texts

    def _check_unreadable(self, data: RetrievalSet, unreadable: Sequence[UnreadableVideo]) -> None:
        if not unreadable:
            return
        names = "\n".join(f"  {video.video_id}: {video.reason}" for video in unreadable)
        if not self._allow_missing:
            raise InputError(
                f"{data.name}: {len(unreadable)} of {len(data.video_ids)} videos named in "
                f"{data.annotations} cannot be read:\n{names}\n"
                "Repair them, or set allow_missing_videos to 1 to evaluate without them."
            )
        logger.warning(
            "%s: evaluated without %d unreadable videos:\n%s", data.name, len(unreadable), names
        )

    @torch.inference_mode()
    def score(
        self, data: RetrievalSet, videos: EncodedVideos, texts: EncodedTexts
    ) -> RetrievalOutcome:
        """Score the pairs of an encoded set."""
        lost = {video.video_id for video in videos.unreadable}
        columns = [c for c, video_id in enumerate(data.video_ids) if video_id not in lost]
        rows = [r for r, row in enumerate(data.rows) if row.video_id not in lost]
        if not rows:
            raise InputError(f"{data.name}: none of the {len(data.video_ids)} videos can be read.")
        temperature = float(self.model.temp.detach())
        similarity = (texts.embeddings @ videos.embeddings.T / temperature).numpy()
        similarity = similarity[np.ix_(rows, columns)]
        scored = np.zeros(similarity.shape, dtype=bool)
        scores = np.zeros(similarity.shape, dtype=np.float64)
        if self._use_matching:
            scored = pairs_to_score(similarity, top_k=self._top_k)
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
        )

    def _match(
        self,
        videos: EncodedVideos,
        texts: EncodedTexts,
        *,
        rows: Sequence[int],
        columns: Sequence[int],
        scored: np.ndarray,
    ) -> np.ndarray:
        """(C, V) probability of a match; each rank scores the videos whose tokens it holds."""
        own: dict[int, np.ndarray] = {}
        mine = [index for index, column in enumerate(columns) if column in videos.tokens]
        with evaluation_mode(self.model):
            for index in self._progress(mine, "scoring pairs", "video"):
                wanted = [rows[row] for row in np.flatnonzero(scored[:, index]).tolist()]
                own[index] = self._match_one(texts, wanted, videos.select([columns[index]]))
        scores = np.zeros(scored.shape, dtype=np.float64)
        for part in self._engine.gather_objects(own):
            for index, column_scores in part.items():
                scores[scored[:, index], index] = column_scores
        return scores

    def _match_one(
        self, texts: EncodedTexts, captions: Sequence[int], video: VideoFeatures
    ) -> np.ndarray:
        """(len(captions),) float64 probabilities that one video matches each of some captions."""
        scores = []
        for piece in chunks(len(captions), size=self._caption_chunk):
            text = texts.select([captions[i] for i in piece])
            repeated = VideoFeatures(
                video.tokens.expand(len(piece), -1, -1), video.embedding.expand(len(piece), -1)
            )
            with autocast(self._precision, self._engine.device):
                logits = self.model.match(text, repeated)  # (C', 2)
            # float64: in float32 confident matches all become 1.0, and ties
            scores.append(logits.double().softmax(dim=-1)[:, MATCH].cpu().numpy())
        return np.concatenate(scores) if scores else np.zeros(0)

    def run(self, data: RetrievalSet) -> RetrievalOutcome:
        """Encode and score a set."""
        return self.score(data, *self.encode(data))


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Context in which a model is in evaluation mode; its former mode comes back afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
