"""Losses as pure functions of tensors: no communication, no logging, generators passed in.

Video-text contrastive loss (VTC), video-text matching loss with hard negatives (VTM), masked
language loss (MLM) and prompted entity loss (PEM); "itc", "itm", "mlm" and "mpm" in ALPRO's configs
and checkpoints.

B: pairs of this process, G: pairs of all processes in rank order, or those that negatives are drawn
from, which hold the B as rows `offset` ... `offset + B - 1`; M: negative pairs, at most 2B;
C: clips of a video, E: width of the embeddings; n: masked tokens, V: words of the vocabulary,
K: entities.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

NO_NEGATIVE = -1  # index for "none"

Aggregation = Callable[[Tensor, int], Tensor]
"""From similarities and the dimension of a video's clips to those of the video."""


class PairLoss(Protocol):
    """Contrastive loss over the G pairs of all processes."""

    def __call__(
        self, videos: Tensor, texts: Tensor, *, temperature: Tensor, exclude: Tensor | None
    ) -> Tensor:
        """Scalar from embeddings (G, E); `exclude` (G, G) is true for pairs that count nowhere."""


def similarity(queries: Tensor, keys: Tensor, *, temperature: Tensor | float) -> Tensor:
    """Inner products (B, G) of unit vectors (B, E) and (G, E), divided by the temperature."""
    # In float32, whatever the precision around: small temperatures magnify rounding.
    with torch.autocast(queries.device.type, enabled=False):
        return queries.float() @ keys.float().t() / temperature


class SimilarityLogits(NamedTuple):
    """Scaled similarities (B, G) of this process's pairs to all, -inf for excluded pairs."""

    video_to_text: Tensor
    text_to_video: Tensor


def video_similarity(
    video: Tensor, text: Tensor, *, temperature: Tensor | float, aggregate: Aggregation
) -> Tensor:
    """Similarities (B, G) of videos (B, C, E) to texts (G, E)."""
    of_clips = similarity(video.flatten(0, 1), text, temperature=temperature)  # (B*C, G)
    return aggregate(of_clips.unflatten(0, video.shape[:2]), 1)


def similarity_logits(
    video: Tensor,
    text: Tensor,
    *,
    all_video: Tensor,
    all_text: Tensor,
    temperature: Tensor | float,
    exclude: Tensor | None = None,
    aggregate: Aggregation = torch.squeeze,
) -> SimilarityLogits:
    """Similarities of B pairs to all G; videos (B, C, E) and (G, C, E), texts (B, E) and (G, E).

    The default of `aggregate` is for one clip; pairs where `exclude` (B, G) is true count nowhere.
    """
    # Each direction compares this process's items with all of the other kind.
    video_to_text = video_similarity(
        video, all_text, temperature=temperature, aggregate=aggregate
    )  # (B, G)
    of_clips = similarity(text, all_video.flatten(0, 1), temperature=temperature)  # (B, G*C)
    text_to_video = aggregate(of_clips.unflatten(1, all_video.shape[:2]), 2)  # (B, G)
    # An excluded pair is neither positive nor negative.
    if exclude is not None:
        video_to_text = video_to_text.masked_fill(exclude, -torch.inf)
        text_to_video = text_to_video.masked_fill(exclude, -torch.inf)
    return SimilarityLogits(video_to_text, text_to_video)


def contrastive_loss_from_logits(scores: SimilarityLogits, *, offset: int = 0) -> Tensor:
    """VTC, the symmetric InfoNCE loss: mean of the cross-entropies of both directions.

    Args:
        scores: from `similarity_logits`.
        offset: row of this process's first pair in the global batch.

    Returns:
        Scalar, float32.
    """
    video_to_text, text_to_video = scores
    # The right column of row i is the own partner's place in the global batch.
    own = torch.arange(offset, offset + len(video_to_text), device=video_to_text.device)  # (B,)
    loss_of_videos = functional.cross_entropy(video_to_text, own)
    loss_of_texts = functional.cross_entropy(text_to_video, own)
    return (loss_of_videos + loss_of_texts) / 2


class Pairs(NamedTuple):
    """Pairs of one text and one video each, by their rows (K,) of the G."""

    texts: Tensor
    videos: Tensor


def sample_hard_negatives(
    sim_v2t: Tensor,
    sim_t2v: Tensor,
    *,
    offset: int = 0,
    generator: torch.Generator | None = None,
    exclude: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw one negative video per text and one negative text per video, similar ones likelier.

    The softmax of row i, without its own partner, column `offset + i`, and excluded pairs, is the
    distribution that its negative is drawn from.

    Args:
        sim_v2t: (B, G), video i against text j, divided by the temperature.
        sim_t2v: (B, G), text i against video j.
        offset: row of the first of the B pairs in the G.
        generator: on the device of the similarities; None takes PyTorch's own.
        exclude: (B, G) bool, symmetric, True for pairs that are no negatives.

    Returns:
        Video for each text and text for each video, int64 (B,) each, holding `NO_NEGATIVE` where
        nothing can be drawn (a batch of one pair; everything excluded). See `negative_pairs`.
    """
    # Forbid each row's own partner and the excluded pairs.
    forbidden = torch.zeros_like(sim_v2t, dtype=torch.bool)  # (B, G)
    forbidden[:, offset : offset + len(sim_v2t)].fill_diagonal_(True)
    if exclude is not None:
        forbidden |= exclude
    # Videos first, then texts: the order of the draws is part of a run's numbers.
    video_for_text = _draw(sim_t2v, forbidden, generator)
    text_for_video = _draw(sim_v2t, forbidden, generator)
    return video_for_text, text_for_video


def _draw(similarity: Tensor, forbidden: Tensor, generator: torch.Generator | None) -> Tensor:
    """One column (B,) per row of a (B, G) similarity."""
    impossible = forbidden.all(dim=1)  # (B,)
    # A diverged model may draw anything: its loss is not finite either, and is handled as such.
    finite = similarity.detach().float().nan_to_num()
    scores = finite.masked_fill(forbidden, -torch.inf)
    # An impossible row has no softmax; its draw is thrown away.
    scores = scores.masked_fill(impossible.unsqueeze(1), 0.0)
    drawn = torch.multinomial(scores.softmax(dim=1), 1, generator=generator).squeeze(1)
    return drawn.masked_fill(impossible, NO_NEGATIVE)


def negative_pairs(video_for_text: Tensor, text_for_video: Tensor, *, offset: int = 0) -> Pairs:
    """The M <= 2B drawn negatives: (text i, its video) for all i, then (its text, video i)."""
    # Rows for which nothing could be drawn are left out.
    own = _own_rows(len(video_for_text), offset=offset, device=video_for_text.device)
    texts = torch.cat([own, text_for_video])  # (2B,)
    videos = torch.cat([video_for_text, own])  # (2B,)
    exists = (texts != NO_NEGATIVE) & (videos != NO_NEGATIVE)
    return Pairs(texts[exists], videos[exists])


def with_positives(negatives: Pairs, num_positive: int, *, offset: int = 0) -> Pairs:
    """The pairs (i, i) for the `num_positive` rows from `offset` on, then the negatives: (B+M,)."""
    own = _own_rows(num_positive, offset=offset, device=negatives.texts.device)
    return Pairs(torch.cat([own, negatives.texts]), torch.cat([own, negatives.videos]))


def _own_rows(num_pairs: int, *, offset: int, device: torch.device) -> Tensor:
    """Rows (B,) of this process's pairs in the G."""
    return torch.arange(offset, offset + num_pairs, device=device)


def matching_labels(num_pairs: int, num_positive: int, *, device: torch.device) -> Tensor:
    """int64 (num_pairs,): 1 for the first `num_positive` pairs, 0 for the others."""
    return (torch.arange(num_pairs, device=device) < num_positive).long()


def matching_loss(logits: Tensor, num_positive: int) -> Tensor:
    """VTM: cross-entropy of classifying pairs as belonging together or not.

    Args:
        logits: (B+M, 2), the positives first; index 1 means that they belong together.
        num_positive: B.

    Returns:
        Mean over all pairs, scalar, float32.
    """
    labels = matching_labels(len(logits), num_positive, device=logits.device)
    return functional.cross_entropy(logits.float(), labels)


def masked_language_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """MLM: cross-entropy of predicting the masked words.

    Args:
        logits: (n, V), of the masked tokens only.
        labels: (n,) int64, the masked words.

    Returns:
        Mean over the masked tokens, scalar, float32. Without any it is 0, whose gradient is zero.
    """
    # A mean over no token would be NaN.
    total = functional.cross_entropy(logits.float(), labels, reduction="sum")
    return total / max(len(labels), 1)


def is_confident(targets: Tensor, *, threshold: float) -> Tensor:
    """Whether the best of each sample's (B, K) probabilities reaches the threshold: (B,) bool."""
    return targets.amax(dim=1) >= threshold


def prompted_entity_loss(logits: Tensor, targets: Tensor, *, threshold: float) -> Tensor:
    """PEM: cross-entropy of predicting the prompter's entities.

    Args:
        logits: (B, K).
        targets: (B, K) probabilities.
        threshold: See `is_confident`; the other samples are left out.

    Returns:
        Mean over the confident samples, scalar, float32. Without any it is 0, whose gradient is
        zero.
    """
    # Average over the confident samples; a mean over none would be NaN.
    counts = is_confident(targets, threshold=threshold)  # (B,)
    losses = functional.cross_entropy(logits.float(), targets.float(), reduction="none")  # (B,)
    return (losses * counts).sum() / counts.sum().clamp(min=1)
