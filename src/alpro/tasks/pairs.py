"""VTC over all ranks and the pairs of VTM, for all objectives over matching pairs.

Every rank's loss is weighed so that the mean of the ranks' losses, and of their gradients, is the
mean over all pairs, also where ranks have different numbers of pairs.

Shapes: B pairs on this rank, M negative pairs, G pairs on all ranks, C clips of a video, L text
tokens, N patches, D width, E embedding. Features of videos are (B, C, ...).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from alpro.distributed.engine import Engine
from alpro.evaluation.encoding import aggregate_clips, score_clips
from alpro.losses import (
    PairLoss,
    Pairs,
    SimilarityLogits,
    contrastive_loss_from_logits,
    matching_loss,
    negative_pairs,
    sample_hard_negatives,
    similarity_logits,
    video_similarity,
    with_positives,
)
from alpro.modeling.contracts import Matcher, TextFeatures, VideoFeatures
from alpro.modeling.grad_cache import grad_cached


@dataclass(frozen=True, slots=True, kw_only=True)
class GatheredBatch:
    """Metadata of the global batch, whose G pairs this rank's B pairs are compared with."""

    engine: Engine
    temperature: Tensor
    """Divides the similarities."""
    counts: Sequence[int]
    """Pairs of each rank, in rank order."""
    num_tokens: int
    """L of the rank with the longest text."""
    same_video: Tensor | None
    """(G, G) bool, pairs of one video, which are no negatives; None for none."""
    clip_aggregation: str = "mean"
    """Reduction over a video's clips, see :func:`aggregate_clips`."""

    def aggregate(self, scores: Tensor, dim: int) -> Tensor:
        """Reduce scores over the clips of each video."""
        return aggregate_clips(scores, how=self.clip_aggregation, dim=dim)

    @property
    def own(self) -> slice:
        """Rows of this rank's pairs in the global batch."""
        first = sum(self.counts[: self.engine.rank])
        return slice(first, first + self.counts[self.engine.rank])

    @property
    def exclude(self) -> Tensor | None:
        """Rows (B, G) of `same_video` of this rank's pairs."""
        return None if self.same_video is None else self.same_video[self.own]


def gather_batch_metadata(
    video_ids: Sequence[str],
    *,
    num_tokens: int,
    temperature: Tensor,
    engine: Engine,
    mask_same_video: bool,
    clip_aggregation: str = "mean",
) -> GatheredBatch:
    """Gather batch sizes, text lengths and video ids from all ranks.

    With `mask_same_video` the pairs of one video are not each other's negatives; `temperature`
    divides the similarities.
    """
    # Ids are sent only if they are compared.
    ids = list(video_ids) if mask_same_video else []
    gathered = engine.gather_objects((len(video_ids), num_tokens, ids))
    counts, lengths, ids_of_ranks = zip(*gathered, strict=True)
    return GatheredBatch(
        engine=engine,
        temperature=temperature,
        counts=counts,
        num_tokens=max(lengths),
        same_video=same_video(ids_of_ranks, device=engine.device) if mask_same_video else None,
        clip_aggregation=clip_aggregation,
    )


def same_video(ids_of_ranks: Sequence[Sequence[str]], *, device: torch.device) -> Tensor:
    """(G, G) bool, true where another pair shows the same video."""
    ids = [name for names in ids_of_ranks for name in names]
    number_of = {name: number for number, name in enumerate(ids)}
    numbers = torch.tensor([number_of[name] for name in ids], device=device)  # (G,)
    # A pair is its own positive.
    return (numbers[:, None] == numbers[None, :]).fill_diagonal_(False)


def gather_embeddings(
    video: VideoFeatures, text: TextFeatures, *, gathered: GatheredBatch
) -> tuple[Tensor, Tensor]:
    """Embeddings of the pairs of all ranks, videos (G, C, E) and texts (G, E), with gradients."""
    # Gather videos and texts in one collective.
    clips = video.embedding.flatten(1)  # (B, C*E)
    own = torch.cat([clips, text.embedding], dim=1)  # (B, (C+1)*E)
    both = gathered.engine.all_gather(own, counts=gathered.counts)  # (G, (C+1)*E)
    widths = [clips.shape[1], text.embedding.shape[1]]
    all_video, all_text = (part.contiguous() for part in both.split(widths, dim=1))
    return all_video.unflatten(1, video.embedding.shape[1:]), all_text


def contrast_with_all(
    video: VideoFeatures, text: TextFeatures, *, gathered: GatheredBatch
) -> SimilarityLogits:
    """Similarities of this rank's B pairs to the G of all ranks, gradients to both included."""
    all_video, all_text = gather_embeddings(video, text, gathered=gathered)
    return similarity_logits(
        video.embedding,
        text.embedding,
        all_video=all_video,
        all_text=all_text,
        temperature=gathered.temperature,
        exclude=gathered.exclude,
        aggregate=gathered.aggregate,
    )


def contrast_loss(scores: SimilarityLogits, *, gathered: GatheredBatch) -> Tensor:
    """VTC of the logits of :func:`contrast_with_all`, as this rank's share of the ranks' mean."""
    mean = contrastive_loss_from_logits(scores, offset=gathered.own.start)
    num_own, total = len(scores.video_to_text), sum(gathered.counts)
    return mean * _weight(num_own, total=total, engine=gathered.engine)


def global_contrast_loss(
    video: VideoFeatures, text: TextFeatures, *, gathered: GatheredBatch, loss: PairLoss
) -> Tensor:
    """A loss that every rank computes over all pairs, with the mean similarity of clips."""
    # The ranks' losses are equal. The gather sums their gradients and the engine takes the mean,
    # which gives the gradients of one process with all pairs.
    videos, texts = gather_embeddings(video, text, gathered=gathered)
    assert videos.shape[1] == 1 or gathered.clip_aggregation == "mean", gathered.clip_aggregation
    return loss(
        videos.mean(dim=1),  # (G, E)
        texts,
        temperature=gathered.temperature,
        exclude=gathered.same_video,
    )


def match_loss(logits: Tensor, num_positive: int, *, engine: Engine) -> Tensor:
    """VTM over (B+M, 2) logits, the B positives first, as this rank's share of the ranks' mean."""
    total = engine.sum({"matched": len(logits)})["matched"]
    return matching_loss(logits, num_positive) * _weight(len(logits), total=total, engine=engine)


def _weight(count: int, *, total: float, engine: Engine) -> float:
    """Weight of a rank's mean over `count` of `total` items in the mean of the ranks' losses."""
    return count * engine.size / total


class NegativePool(NamedTuple):
    """Videos and texts from which VTM draws negatives."""

    video: VideoFeatures
    text: TextFeatures
    similarities: SimilarityLogits
    """Of this rank's B pairs to the pool."""
    exclude: Tensor | None
    """Pairs that are no negatives, as similarities."""
    offset: int
    """Row of this rank's first pair."""


def local_negatives(
    video: VideoFeatures, text: TextFeatures, *, gathered: GatheredBatch
) -> NegativePool:
    """Pool of this rank's B pairs."""
    temperature, aggregate = gathered.temperature, gathered.aggregate
    v2t = video_similarity(
        video.embedding, text.embedding, temperature=temperature, aggregate=aggregate
    )  # (B, B)
    exclude = None if gathered.exclude is None else gathered.exclude[:, gathered.own]
    return NegativePool(video, text, SimilarityLogits(v2t, v2t.t()), exclude, offset=0)


def global_negatives(
    video: VideoFeatures, text: TextFeatures, *, gathered: GatheredBatch
) -> NegativePool:
    """Pool of the G pairs of all ranks; gradients flow back to the rank that encoded a pair."""
    # Pad texts to one length, then gather tokens, masks and embeddings.
    gather = partial(gathered.engine.all_gather, counts=gathered.counts)
    padding = gathered.num_tokens - text.mask.shape[1]
    tokens = functional.pad(text.tokens, (0, 0, 0, padding))  # (B, longest L, D)
    mask = functional.pad(text.mask, (0, padding))
    video_mask = None if video.mask is None else gather(video.mask)
    all_video = VideoFeatures(gather(video.tokens), gather(video.embedding), video_mask)
    all_text = TextFeatures(gather(tokens), gather(mask), gather(text.embedding))
    # Similarities without exclusions, which the draw applies itself.
    similarities = similarity_logits(
        video.embedding,
        text.embedding,
        all_video=all_video.embedding,
        all_text=all_text.embedding,
        temperature=gathered.temperature,
        aggregate=gathered.aggregate,
    )
    return NegativePool(
        all_video, all_text, similarities, gathered.exclude, offset=gathered.own.start
    )


def hard_negatives(pool: NegativePool, *, generator: torch.Generator | None) -> Pairs:
    """Draw M <= 2B negative pairs, similar ones likelier; one side of each is this rank's.

    The generator is on the model's device; None takes PyTorch's own.
    """
    drawn = sample_hard_negatives(
        *pool.similarities, offset=pool.offset, exclude=pool.exclude, generator=generator
    )
    return negative_pairs(*drawn, offset=pool.offset)


def positives_with(negatives: Pairs, *, pool: NegativePool) -> Pairs:
    """This rank's B pairs, then the negatives: (B+M,) rows of the pool."""
    return with_positives(negatives, len(pool.similarities.video_to_text), offset=pool.offset)


def match_pairs(
    model: Matcher,
    pool: NegativePool,
    pairs: Pairs,
    *,
    grad_cache_size: int,
    clip_aggregation: str = "mean",
) -> Tensor:
    """Matching logits (K, 2) of pairs of a pool, `grad_cache_size` at a time, 0 for all at once."""

    # Each clip of a video is matched with the texts, then the logits are aggregated.
    def match_clip(clip: VideoFeatures) -> Tensor:
        def match(texts: Tensor, videos: Tensor) -> Tensor:
            return model.match(pool.text.select(texts), clip.select(videos))

        return grad_cached(match, *pairs, size=grad_cache_size)

    return score_clips(match_clip, pool.video, how=clip_aggregation)
