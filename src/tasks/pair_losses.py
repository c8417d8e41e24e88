"""What all objectives over matching pairs share: VTC over all ranks, and the pairs of VTM.

Shapes: B pairs on this rank, M negative pairs, G pairs on all ranks.
"""

import hashlib
from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor

from src.distributed.engine import Engine
from src.losses.contrastive import Contrast, contrast, loss_of_contrast, similarity
from src.losses.matching import Pairs, negative_pairs, sample_hard_negatives
from src.modeling.alpro import TextFeatures, VideoFeatures


def same_video(video_ids: Sequence[str], *, engine: Engine) -> Tensor:
    """(B, G) bool, true where another pair shows the same video as one of this rank's."""
    hashes = torch.tensor([_id_hash(name) for name in video_ids], device=engine.device)  # (B,)
    same = hashes[:, None] == engine.all_gather(hashes)[None, :]  # (B, G)
    same[:, own_columns(len(video_ids), engine=engine)].fill_diagonal_(False)
    return same


def own_columns(num_pairs: int, *, engine: Engine) -> slice:
    """Where this rank's pairs stand among those of all ranks."""
    return slice(engine.rank * num_pairs, (engine.rank + 1) * num_pairs)


class Among(TypedDict):
    """What pairs are compared among, as keyword arguments."""

    temperature: Tensor
    """Divides the similarities."""
    engine: Engine
    """The job."""
    exclude: Tensor | None
    """(B, G) from :func:`same_video`, pairs that are no negatives; None for none."""


def contrast_with_all(
    video: VideoFeatures,
    text: TextFeatures,
    *,
    temperature: Tensor,
    engine: Engine,
    exclude: Tensor | None,
) -> Contrast:
    """This rank's B pairs against those of all ranks, with the gradient that reaches each from any.

    Args:
        video: of B pairs.
        text: of the same pairs.
        temperature: see :class:`Among`, as the others.
        engine: the job.
        exclude: pairs that are no negatives.
    """
    return contrast(
        video.embedding,
        text.embedding,
        all_video=engine.all_gather(video.embedding),
        all_text=engine.all_gather(text.embedding),
        temperature=temperature,
        exclude=exclude,
    )


def contrast_loss(scores: Contrast, *, engine: Engine) -> Tensor:
    """VTC of this rank's pairs, from :func:`contrast_with_all`."""
    num_pairs = len(scores.video_to_text)
    return loss_of_contrast(scores, offset=own_columns(num_pairs, engine=engine).start)


def hard_negatives(
    video: VideoFeatures,
    text: TextFeatures,
    *,
    temperature: Tensor,
    engine: Engine,
    exclude: Tensor | None,
    generator: torch.Generator | None,
) -> Pairs:
    """M <= 2B pairs of this rank that do not belong together, similar ones likelier.

    Args:
        video: of B pairs.
        text: of the same pairs.
        temperature: see :class:`Among`, as the next two.
        engine: the job.
        exclude: pairs that are no negatives.
        generator: on the model's device; None takes PyTorch's own.
    """
    v2t = similarity(video.embedding, text.embedding, temperature=temperature)  # (B, B)
    own = None if exclude is None else exclude[:, own_columns(len(v2t), engine=engine)]
    drawn = sample_hard_negatives(v2t, v2t.t(), exclude=own, generator=generator)
    return negative_pairs(*drawn)


def _id_hash(video_id: str) -> int:
    """A signed 64-bit number for a video id, the same in every process."""
    digest = hashlib.blake2b(video_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
