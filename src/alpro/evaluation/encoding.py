"""Encoding every video and every caption once, sharded over the ranks.

Chunks are cut before they are sharded, so a chunk's shape, and with it every last bit of its
features, does not depend on the number of ranks.

Shapes: P captions, V videos, C clips of each, N patches, L text tokens, D width, E embedding.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from alpro.datasets.video_datasets import UnreadableVideo, VideoBatch
from alpro.distributed.engine import Engine, autocast
from alpro.modeling.contracts import Encoders, TextFeatures, VideoFeatures
from alpro.modeling.grad_cache import grad_cached

AGGREGATIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "mean": torch.mean,
    "max": torch.amax,
    "lse": torch.logsumexp,
}
"""Value of ``score_agg_func`` -> reduction along a dimension."""


def aggregate_clips(scores: Tensor, *, how: str, dim: int) -> Tensor:
    """Reduce (..., C, ...) scores over the clips of a video by a key of :data:`AGGREGATIONS`."""
    # The scores of a single clip stay as they are, to the bit.
    return scores.squeeze(dim) if scores.shape[dim] == 1 else AGGREGATIONS[how](scores, dim)


def encode_clips(
    model: Encoders,
    frames: Tensor,
    *,
    normalize: Callable[[Tensor], Tensor],
    grad_cache_size: int = 0,
) -> VideoFeatures:
    """Encode the clips of all videos.

    Args:
        model: the encoder.
        frames: (B, C, T, 3, S, S) uint8, on the model's device.
        normalize: uint8 frames to the model's input.
        grad_cache_size: clips per forward pass in training, 0 for all at once.

    Returns:
        tokens (B, C, N, D), embedding (B, C, E) and, where the model gives one, mask (B, C, N).
    """

    def encode(clips: Tensor) -> VideoFeatures:
        return model.encode_video(normalize(clips))

    # Training encodes all clips as one batch; without gradients they are encoded one after the
    # other, so that memory does not grow with C.
    parts: Iterable[Tensor | None]
    if torch.is_grad_enabled():
        encoded = grad_cached(encode, frames.flatten(0, 1), size=grad_cache_size)  # (B*C, ...)
        parts = (None if x is None else x.unflatten(0, frames.shape[:2]) for x in encoded)
    else:
        clips = zip(*(encode(clip) for clip in frames.unbind(dim=1)), strict=True)
        parts = (None if of[0] is None else torch.stack(of, dim=1) for of in clips)
    return VideoFeatures(*parts)  # type: ignore[arg-type]  # only the mask may be None


def clip_of(video: VideoFeatures, clip: int) -> VideoFeatures:
    """One clip of each video: features (B, C, ...) to (B, ...)."""
    mask = None if video.mask is None else video.mask[:, clip]
    return VideoFeatures(video.tokens[:, clip], video.embedding[:, clip], mask)


def score_clips(
    score: Callable[[VideoFeatures], Tensor], video: VideoFeatures, *, how: str
) -> Tensor:
    """Score each clip (B, ...) of some videos (B, C, ...) and aggregate: (K, A) float32."""
    scores = [score(clip_of(video, clip)).float() for clip in range(video.tokens.shape[1])]
    return aggregate_clips(torch.stack(scores, dim=1), how=how, dim=1)


Tokenize = Callable[[Sequence[str]], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class EncodedVideos:
    """Features of a set of videos: embeddings of all of them, and all features of this rank's."""

    embeddings: Tensor
    """(V, C, E) float32 on every rank; rows of unreadable videos are zero."""
    own: dict[int, VideoFeatures]
    """Position -> (C, ...) of the videos that this rank encoded; without N if not kept."""
    unreadable: list[UnreadableVideo]
    """Videos of all ranks that could not be read."""

    def select(self, positions: Sequence[int]) -> VideoFeatures:
        """Features (K, C, ...) of K of this rank's videos, on the device."""
        tokens, embeddings, masks = zip(*(self.own[p] for p in positions), strict=True)
        mask = None if masks[0] is None else torch.stack(masks)
        return VideoFeatures(torch.stack(tokens), torch.stack(embeddings), mask)


@dataclass(frozen=True, slots=True)
class EncodedTexts:
    """Features of a set of captions, all of them on every rank."""

    tokens: Tensor
    """(P, L, D), padded to the longest caption."""
    mask: Tensor
    """(P, L) int64, 1 for a token and 0 for padding."""
    embeddings: Tensor
    """(P, E) float32."""

    def select(self, rows: Sequence[int]) -> TextFeatures:
        """Features of some captions, padded to the longest of them."""
        # Cut the padding that no selected caption needs.
        index = torch.as_tensor(rows, device=self.mask.device)
        mask = self.mask[index]
        length = int(mask.sum(dim=1).max())
        embeddings = self.embeddings[list(rows)].to(index.device)
        return TextFeatures(self.tokens[index, :length], mask[:, :length], embeddings)


def chunks(count: int, *, size: int) -> list[range]:
    """Cut ``range(count)`` into pieces of ``size``, the last one shorter."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def shard(pieces: Sequence[range], *, engine: Engine) -> Sequence[range]:
    """This rank's pieces."""
    return pieces[engine.rank :: engine.size]


@torch.inference_mode()
def encode_videos(
    model: Encoders,
    batches: Iterable[VideoBatch],  # this rank's chunks
    *,
    num_videos: int,  # V, over all ranks
    normalize: Callable[[Tensor], Tensor],
    engine: Engine,
    precision: str,
    keep_tokens: bool,
) -> EncodedVideos:
    """Encode this rank's videos and share the embeddings; the model is in evaluation mode.

    The fusion encoder needs the tokens, VTC alone does not.
    """
    # Encode this rank's chunks; tokens stay on the device.
    embeddings: dict[int, np.ndarray] = {}
    own: dict[int, VideoFeatures] = {}
    unreadable: list[UnreadableVideo] = []
    for batch in batches:
        unreadable += batch.unreadable
        frames = batch.to(engine.device).frames
        if frames is None:  # no video of the chunk is readable
            continue
        with autocast(precision, engine.device):
            features = encode_clips(model, frames, normalize=normalize)
        for row, position in enumerate(batch.positions):
            embedding = features.embedding[row].float()
            embeddings[position] = embedding.cpu().numpy()
            tokens = features.tokens[row] if keep_tokens else features.tokens[row, :, :0]
            mask = None if features.mask is None or not keep_tokens else features.mask[row]
            own[position] = VideoFeatures(tokens, embedding, mask)
    # Share the embeddings; rows of unreadable videos stay zero.
    gathered = engine.gather_objects((embeddings, unreadable))
    shapes = [embedding.shape for part, _ in gathered for embedding in part.values()]
    table = np.zeros((num_videos, *max(shapes, default=(1, 0))), dtype=np.float32)
    for part, _ in gathered:
        for position, clips in part.items():
            table[position] = clips
    return EncodedVideos(
        embeddings=torch.from_numpy(table),
        own=own,
        unreadable=list(chain.from_iterable(part for _, part in gathered)),
    )


@torch.inference_mode()
def encode_texts(
    model: Encoders,
    captions: Sequence[str],
    *,
    tokenize: Tokenize,
    chunk_size: int,
    engine: Engine,
    precision: str,
) -> EncodedTexts:
    """Encode this rank's captions and share all features; the model is in evaluation mode."""
    # Encode this rank's chunks.
    encoded = []
    for piece in shard(chunks(len(captions), size=chunk_size), engine=engine):
        ids, mask = tokenize([captions[row] for row in piece])
        with autocast(precision, engine.device):
            features = model.encode_text(ids.to(engine.device), mask.to(engine.device))
        encoded.append((piece.start, features.tokens.cpu(), mask, features.embedding.float().cpu()))
    # Join the chunks of all ranks in order, padded to the longest caption.
    pieces = sorted(chain.from_iterable(engine.gather_objects(encoded)), key=lambda piece: piece[0])
    length = max(mask.shape[1] for _, _, mask, _ in pieces)
    return EncodedTexts(
        tokens=torch.cat([_pad(tokens, length) for _, tokens, _, _ in pieces]).to(engine.device),
        mask=torch.cat([_pad(mask, length) for _, _, mask, _ in pieces]).to(engine.device),
        embeddings=torch.cat([embedding for _, _, _, embedding in pieces]),
    )


def _pad(tensor: Tensor, length: int) -> Tensor:
    """(P, L, ...) padded with zeros to (P, length, ...)."""
    padded = tensor.new_zeros((tensor.shape[0], length, *tensor.shape[2:]))
    padded[:, : tensor.shape[1]] = tensor
    return padded
