"""Contrastive losses of CLIP-ViP (paper, section 3.3) and its code, on a global batch.

They are sums of both directions, not means. `LOSS_SPECS` lists what each takes.

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

from alpro.families.clip_vip.config import LOSS_SPECS
from alpro.losses import PairLoss, similarity


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


GlobalLoss = Callable[[GlobalFeatures, Tensor], Tensor]
"""From features and the model's temperature to a scalar, float32."""


def nce(features: GlobalFeatures, *, temperature: Tensor | float) -> Tensor:
    """InfoNCE of videos and subtitles."""
    logits = similarity(features.videos, features.subtitles, temperature=temperature)  # (G, G)
    if features.exclude is not None:
        logits = logits.masked_fill(features.exclude, -torch.inf)
    return _both_directions(logits)


def nce_dual_softmax(features: GlobalFeatures, *, temperature: Tensor) -> Tensor:
    """InfoNCE of similarities times their softmax in the other direction."""
    logits = similarity(features.videos, features.subtitles, temperature=temperature)  # (G, G)
    of_videos = _cross_entropy(logits * logits.softmax(dim=0))
    return of_videos + _cross_entropy(logits.t() * logits.t().softmax(dim=0))


def nce_joint(features: GlobalFeatures, *, temperature: Tensor) -> Tensor:
    """InfoNCE of videos and frames together against subtitles and captions together."""
    assert features.images is not None
    assert features.captions is not None
    visual = torch.cat([features.videos, features.images])  # (G+N, E)
    texts = torch.cat([features.subtitles, features.captions])  # (G+N, E)
    return _both_directions(similarity(visual, texts, temperature=temperature))


def nce_of_frames(features: GlobalFeatures, *, temperature: Tensor) -> Tensor:
    """InfoNCE of frames and captions."""
    assert features.images is not None
    assert features.captions is not None
    return _both_directions(similarity(features.images, features.captions, temperature=temperature))


def nce_of_captions(features: GlobalFeatures, *, temperature: Tensor) -> Tensor:
    """InfoNCE of videos and captions."""
    assert features.captions is not None
    videos = features.videos[_captioned(features)]  # (N, E)
    return _both_directions(similarity(videos, features.captions, temperature=temperature))


def vsc(features: GlobalFeatures, *, temperature: Tensor) -> Tensor:
    """InfoNCE of each subtitle and caption; a video's negatives are both texts of all others."""
    # Both directions have one row per text; a video counts once for each of its texts.
    assert features.captions is not None
    texts = torch.cat([features.subtitles, features.captions])  # (G+N, E)
    own = torch.arange(len(texts), device=texts.device)
    num_videos = len(features.videos)
    owners = torch.cat([own[:num_videos], _captioned(features)])  # (G+N,)
    to_videos = similarity(texts, features.videos, temperature=temperature)  # (G+N, G)
    # The other text of the same video is neither positive nor negative.
    sibling = (owners[:, None] == owners[None, :]).fill_diagonal_(False)  # (G+N, G+N)
    to_texts = to_videos[:, owners].t().masked_fill(sibling, -torch.inf)  # (G+N, G+N)
    # Subtitles and captions have a mean each: there may be fewer captions.
    losses = [
        _cross_entropy(to_videos[kind], owners[kind]) + _cross_entropy(to_texts[kind], own[kind])
        for kind in (slice(num_videos), slice(num_videos, None))
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
    own, right = _own(scores), scores.diagonal()
    of_videos = (margin + scores - right[:, None]).clamp(min=0).masked_fill(own, 0.0)
    of_texts = (margin + scores - right[None, :]).clamp(min=0).masked_fill(own, 0.0)
    if max_violation:
        return of_videos.max(dim=1).values.sum() + of_texts.max(dim=0).values.sum()
    return of_videos.sum() + of_texts.sum()


def hard_negatives(features: GlobalFeatures, *, hard_negative_num: int) -> Tensor:
    """Cross-entropy of each positive and its most similar negatives, at temperature 1."""
    scores = similarity(features.videos, features.subtitles, temperature=1.0)  # (G, G)
    negatives = scores.masked_fill(_own(scores), -torch.inf)
    num = min(hard_negative_num, len(scores) - 1)
    losses = []
    for rows in (negatives, negatives.t()):
        hardest = rows.topk(num, dim=1).values  # (G, num)
        logits = torch.cat([scores.diagonal()[:, None], hardest], dim=1)
        losses.append((logits.logsumexp(dim=1) - logits[:, 0]).mean())
    return losses[0] + losses[1]


def mil_nce(features: GlobalFeatures, *, temp: float) -> Tensor:
    """MIL-NCE (Miech et al., CVPR 2020): each video has K positive subtitles."""
    logits = similarity(features.videos, features.subtitles, temperature=temp)  # (G, G*K)
    logits = logits.unflatten(1, (len(logits), -1))  # (G, G, K)
    # Candidates are this video with the texts of others, and all videos with its own texts.
    own = _own(logits)
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
    "NCELearnableTempLoss_vs_vc": _sum_of(nce, nce_of_captions),
    "NCELearnableTempLoss_vsc": vsc,
    "VidImgNCELearnableTempLoss": nce_joint,
    "VidImgDivideNCELearnableTempLoss": _sum_of(nce, nce_of_frames),
    "NCELearnableTempLoss_vs_vc_fc": _sum_of(nce, nce_of_captions, nce_of_frames),
    "NCELearnableTempLoss_vsc_fc": _sum_of(vsc, nce_of_frames),  # the paper's omnisource loss
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


def _both_directions(logits: Tensor) -> Tensor:
    return _cross_entropy(logits) + _cross_entropy(logits.t())


def _cross_entropy(logits: Tensor, right: Tensor | None = None) -> Tensor:
    """Mean over rows, 0 for none; the `right` columns are those of the diagonal by default."""
    right = torch.arange(len(logits), device=logits.device) if right is None else right
    return functional.cross_entropy(logits, right, reduction="sum") / max(len(logits), 1)


def _own(scores: Tensor) -> Tensor:
    """(G, G) bool, True on the diagonal."""
    return torch.eye(len(scores), dtype=torch.bool, device=scores.device)


def _captioned(features: GlobalFeatures) -> Tensor:
    """(N,) rows of the captions' videos."""
    every = torch.arange(len(features.videos), device=features.videos.device)
    return every if features.captioned is None else features.captioned
