"""Contrastive losses of CLIP-ViP (paper, section 3.3) and its code, on a global batch.

They are sums of both directions, not means. `loss_specs` lists what each needs.

G: videos of all processes, N: captioned middle frames of them, K: subtitles of a video, E: width of
the embeddings, which are unit vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from alpro.families.clip_vip.loss_specs import LOSS_SPECS
from alpro.losses.contrastive import similarity
from alpro.tasks.pairs import PairLoss


class GlobalFeatures(NamedTuple):
    """Embeddings of a global batch."""

    videos: Tensor
    """(G, E)."""
    subtitles: Tensor
    """(G, E), row i of video i; for MIL-NCE (G*K, E), grouped by video."""
    images: Tensor | None = None
    """(N, E) of middle frames."""
    captions: Tensor | None = None
    """(N, E) of the same frames."""
    captioned: Tensor | None = None
    """(N,) rows of their videos, each at most once; None for all G in order."""
    exclude: Tensor | None = None
    """(G, G) bool, symmetric, True for pairs that are no negatives."""

    def caption_owners(self) -> Tensor:
        """(N,) rows of the captions' videos."""
        every = torch.arange(len(self.videos), device=self.videos.device)
        return every if self.captioned is None else self.captioned


GlobalLoss = Callable[[GlobalFeatures, Tensor], Tensor]
"""From features and the model's temperature to a scalar, float32."""


def nce(features: GlobalFeatures, *, temperature: Tensor | float) -> Tensor:
    """InfoNCE of videos and subtitles."""
    videos, subtitles, exclude = features.videos, features.subtitles, features.exclude
    return _nce(videos, subtitles, temperature=temperature, exclude=exclude)


def nce_dual_softmax(features: GlobalFeatures, *, temperature: Tensor) -> Tensor:
    """InfoNCE of similarities times their softmax in the other direction."""
    logits = similarity(features.videos, features.subtitles, temperature=temperature)  # (G, G)
    never = logits.new_zeros((), dtype=torch.bool) if features.exclude is None else features.exclude

    def weighted(rows: Tensor) -> Tensor:
        prior = rows.masked_fill(never, -torch.inf).softmax(dim=0)
        return (rows * prior).masked_fill(never, -torch.inf)

    return _cross_entropy(weighted(logits)) + _cross_entropy(weighted(logits.t()))


def nce_joint(features: GlobalFeatures, *, temperature: Tensor) -> Tensor:
    """InfoNCE of videos and frames together against subtitles and captions together."""
    assert features.images is not None
    assert features.captions is not None
    visual = torch.cat([features.videos, features.images])  # (G+N, E)
    texts = torch.cat([features.subtitles, features.captions])  # (G+N, E)
    return _nce(visual, texts, temperature=temperature)


def frame_nce(features: GlobalFeatures, *, temperature: Tensor) -> Tensor:
    """InfoNCE of frames and captions."""
    assert features.images is not None
    assert features.captions is not None
    return _nce(features.images, features.captions, temperature=temperature)


def caption_nce(features: GlobalFeatures, *, temperature: Tensor) -> Tensor:
    """InfoNCE of videos and captions."""
    assert features.captions is not None
    videos = features.videos[features.caption_owners()]  # (N, E)
    return _nce(videos, features.captions, temperature=temperature)


def vsc(features: GlobalFeatures, *, temperature: Tensor) -> Tensor:
    """InfoNCE of each subtitle and caption; a video's negatives are both texts of all others."""
    # Both directions have one row per text; a video counts once for each of its texts.
    assert features.captions is not None
    texts = torch.cat([features.subtitles, features.captions])  # (G+N, E)
    own = torch.arange(len(texts), device=texts.device)
    num_videos = len(features.videos)
    owners = torch.cat([own[:num_videos], features.caption_owners()])  # (G+N,)
    to_videos = similarity(texts, features.videos, temperature=temperature)  # (G+N, G)
    # The other text of the same video is neither positive nor negative.
    sibling = (owners[:, None] == owners[None, :]).fill_diagonal_(False)  # (G+N, G+N)
    to_texts = to_videos[:, owners].t().masked_fill(sibling, -torch.inf)  # (G+N, G+N)
    # Subtitles and captions have a mean each: there may be fewer captions.
    kinds = (slice(num_videos), slice(num_videos, None))
    losses = [
        _cross_entropy(to_videos[kind], owners[kind]) + _cross_entropy(to_texts[kind], own[kind])
        for kind in kinds
    ]
    return losses[0] + losses[1]


def triplet(
    features: GlobalFeatures, *, margin: float, measure: str, max_violation: bool
) -> Tensor:
    """Hinge loss, summed over all negatives or the hardest ones (VSE++, BMVC 2018).

    The measure "order" is that of order embeddings (Vendrov et al., ICLR 2016), else "cosine".
    """
    scores = similarity(features.videos, features.subtitles, temperature=1.0)  # (G, G)
    if measure == "order":
        excess = features.subtitles.float()[None] - features.videos.float()[:, None]  # (G, G, E)
        scores = -torch.linalg.vector_norm(excess.clamp(min=0), dim=2)
    ignored, right = _no_negatives(scores, features), scores.diagonal()
    of_videos = (margin + scores - right[:, None]).clamp(min=0).masked_fill(ignored, 0.0)
    of_texts = (margin + scores - right[None, :]).clamp(min=0).masked_fill(ignored, 0.0)
    if max_violation:
        return of_videos.max(dim=1).values.sum() + of_texts.max(dim=0).values.sum()
    return of_videos.sum() + of_texts.sum()


def hard_negatives(features: GlobalFeatures, *, hard_negative_num: int) -> Tensor:
    """Cross-entropy of each positive and its most similar negatives, at temperature 1."""
    scores = similarity(features.videos, features.subtitles, temperature=1.0)  # (G, G)
    negatives = scores.masked_fill(_no_negatives(scores, features), -torch.inf)
    num = min(hard_negative_num, len(scores) - 1)
    own = torch.zeros(len(scores), dtype=torch.long, device=scores.device)  # the first column

    def of_rows(rows: Tensor) -> Tensor:
        hardest = rows.topk(num, dim=1).values  # (G, num)
        return _cross_entropy(torch.cat([scores.diagonal()[:, None], hardest], dim=1), own)

    return of_rows(negatives) + of_rows(negatives.t())


def mil_nce(features: GlobalFeatures, *, temp: float) -> Tensor:
    """MIL-NCE (Miech et al., CVPR 2020): each video has K positive subtitles."""
    logits = similarity(features.videos, features.subtitles, temperature=temp)  # (G, G*K)
    logits = logits.unflatten(1, (len(logits), -1))  # (G, G, K)
    # Candidates are this video with the texts of others, and all videos with its own texts.
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    others = logits.masked_fill(own[:, :, None], -torch.inf).flatten(1)  # (G, G*K)
    candidates = torch.cat([others, logits.transpose(0, 1).flatten(1)], dim=1)  # (G, 2*G*K)
    return (candidates.logsumexp(dim=1) - logits[own].logsumexp(dim=1)).mean()


def _sum_of(*losses: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda features, **own: torch.stack([loss(features, **own) for loss in losses]).sum()


LOSSES: Mapping[str, Callable[..., Tensor]] = {
    "NCEContrastiveLoss": lambda features, *, temp: nce(features, temperature=temp),
    "NCELearnableTempLoss": nce,
    "NCELearnableTempDSLLoss": nce_dual_softmax,
    "TripletContrastiveLoss": triplet,
    "HardNegLoss": hard_negatives,
    "MILNCEContrastiveLoss": mil_nce,
    "VidImgNCELearnableTempLoss": nce_joint,
    "VidImgDivideNCELearnableTempLoss": _sum_of(nce, frame_nce),
    "NCELearnableTempLoss_vs_vc": _sum_of(nce, caption_nce),
    "NCELearnableTempLoss_vs_vc_fc": _sum_of(nce, caption_nce, frame_nce),
    "NCELearnableTempLoss_vsc": vsc,
    "NCELearnableTempLoss_vsc_fc": _sum_of(vsc, frame_nce),  # the paper's omnisource loss
}
"""Name of the original's class -> function of `GlobalFeatures` and what `LOSS_SPECS` names."""


def global_loss(name: str, parameters: Mapping[str, Any]) -> GlobalLoss:
    """Loss of a name; `parameters` are the keys of ``loss_config`` that it has."""
    compute = partial(LOSSES[name], **parameters)
    if LOSS_SPECS[name].trained_temperature:
        return lambda features, temperature: compute(features, temperature=temperature)
    return lambda features, _temperature: compute(features)


def pair_loss(name: str, parameters: Mapping[str, Any]) -> PairLoss:
    """Loss of a name of `RETRIEVAL_LOSSES`, for the retrieval objective."""
    compute = global_loss(name, parameters)
    return lambda videos, texts, *, temperature, exclude: compute(
        GlobalFeatures(videos, texts, exclude=exclude), temperature
    )


def _nce(
    queries: Tensor, keys: Tensor, *, temperature: Tensor | float, exclude: Tensor | None = None
) -> Tensor:
    """Cross-entropies of both directions of queries (N, E) and keys (N, E), summed."""
    logits = similarity(queries, keys, temperature=temperature)  # (N, N)
    if exclude is not None:
        logits = logits.masked_fill(exclude, -torch.inf)
    return _cross_entropy(logits) + _cross_entropy(logits.t())


def _cross_entropy(logits: Tensor, own: Tensor | None = None) -> Tensor:
    """Mean over rows, 0 for none; the right column is `own`, by default that of the diagonal."""
    own = torch.arange(len(logits), device=logits.device) if own is None else own
    return functional.cross_entropy(logits, own, reduction="sum") / max(len(logits), 1)


def _no_negatives(scores: Tensor, features: GlobalFeatures) -> Tensor:
    """(G, G) bool, True for positives and excluded pairs."""
    own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    return own if features.exclude is None else own | features.exclude
