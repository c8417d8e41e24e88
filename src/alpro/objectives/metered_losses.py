"""The losses of pretraining, each with the shares that tell how good it is.

Shapes: B pairs on this rank, G pairs on all ranks, L text tokens, K entities, V words.
"""

import torch
from torch import Tensor

from alpro.datasets.masking import IGNORED
from alpro.distributed.engine import Engine
from alpro.losses.masked_modeling import is_confident, masked_language_loss, prompted_entity_loss
from alpro.losses.matching import matching_labels
from alpro.modeling.contracts import TextFeatures, VideoFeatures
from alpro.objectives.pairs import GatheredBatch, contrast_loss, contrast_with_all, match_loss
from alpro.objectives.validation import LossWithMetrics, Ratio


def measure_contrast(
    video: VideoFeatures, text: TextFeatures, *, gathered: GatheredBatch
) -> LossWithMetrics:
    """VTC; ``i2t_acc``: videos and images whose own caption is the nearest, ``t2i_acc``: captions.

    Args:
        video: of B pairs, (B, C, ...).
        text: of the same pairs.
        gathered: the pairs of all ranks.
    """
    scores = contrast_with_all(video, text, gathered=gathered)
    num_pairs = len(scores.video_to_text)
    own = gathered.own
    right = torch.arange(own.start, own.stop, device=scores.video_to_text.device)  # (B,)
    rates = {
        "i2t_acc": _rate(scores.video_to_text, right),
        "t2i_acc": _rate(scores.text_to_video, right),
    }
    return LossWithMetrics(contrast_loss(scores, gathered=gathered), num_pairs, rates)


def measure_matching(logits: Tensor, num_positive: int, *, engine: Engine) -> LossWithMetrics:
    """VTM over (B+M, 2) logits, the B positives first."""
    labels = matching_labels(len(logits), num_positive, device=logits.device)
    rates = {"itm_acc": _rate(logits, labels)}
    return LossWithMetrics(match_loss(logits, num_positive, engine=engine), len(logits), rates)


def mlm_loss_and_accuracy(logits: Tensor, labels: Tensor) -> LossWithMetrics:
    """MLM over the (n, V) logits of the n tokens to be predicted; `labels` is (B, L)."""
    wanted = labels[labels != IGNORED]  # (n,)
    rates = {"mlm_acc": _rate(logits, wanted)}
    return LossWithMetrics(masked_language_loss(logits, wanted), len(wanted), rates)


def measure_entities(logits: Tensor, targets: Tensor, *, threshold: float) -> LossWithMetrics:
    """PEM over (B, K) logits and the prompter's probabilities.

    ``mpm_acc`` is how often model and prompter name the same entity where the prompter is
    confident, ``mpm_confident`` how often it is.
    """
    sure = is_confident(targets, threshold=threshold)  # (B,)
    agree = (logits.argmax(dim=-1) == targets.argmax(dim=-1)) & sure
    count = sure.sum()
    rates = {"mpm_acc": Ratio(agree.sum(), count), "mpm_confident": Ratio(count, len(sure))}
    return LossWithMetrics(prompted_entity_loss(logits, targets, threshold=threshold), count, rates)


def _rate(scores: Tensor, labels: Tensor) -> Ratio:
    """How often the best of the columns is the right one."""
    return Ratio((scores.detach().argmax(dim=-1) == labels).sum(), len(labels))
