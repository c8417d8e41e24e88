"""Video-text matching loss with hard negatives (VTM; "itm" in ALPRO's configs and checkpoints).

B: positive pairs of this process, M: negative pairs, at most 2B, G: pairs that negatives are drawn
from, which hold the B as rows `offset` ... `offset + B - 1`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

NO_NEGATIVE = -1  # index for "none"


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
    """Cross-entropy of classifying pairs as belonging together or not.

    Args:
        logits: (B+M, 2), the positives first; index 1 means that they belong together.
        num_positive: B.

    Returns:
        Mean over all pairs, scalar, float32.
    """
    labels = matching_labels(len(logits), num_positive, device=logits.device)
    return functional.cross_entropy(logits.float(), labels)
