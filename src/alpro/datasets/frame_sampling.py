"""Frame sampling: the indices of the frames to decode.

The strategies ``uniform``, ``nlvl_uniform``, ``nlvl_rand``, ``rand`` and ``headtail`` choose as
ALPRO (arXiv 2112.09583) does. ``uniform``, which its published numbers use for evaluation,
truncates the *step* to an integer, so that up to the last ``n - 1`` frames can stay unseen;
``segment`` does not: it takes one frame from each of ``n`` equal segments, at random in training,
the centre in evaluation (temporal segment networks, arXiv 1608.00859). ``start``, ``middle`` and
``end`` take ``n`` consecutive frames.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import numpy as np

Sampler = Callable[[int, int, "np.random.Generator | None"], np.ndarray]


def frame_indices(
    strategy: str, *, num_video_frames: int, num_frames: int, rng: np.random.Generator | None
) -> np.ndarray:
    """Choose n = ``num_frames`` of V = ``num_video_frames`` frames by one of ``STRATEGIES``.

    A video with fewer frames than wanted repeats some: frame ``floor(i * V / n)``, whatever the
    strategy. Without a generator, ``segment`` takes segment centres.

    Returns:
        (n,) int64, in increasing order, all within [0, V).
    """
    # Refuse impossible requests.
    if strategy not in STRATEGIES:
        raise ValueError(f"frame sampling {strategy!r}: choose one of {', '.join(STRATEGIES)}")
    if num_video_frames < 1 or num_frames < 1:
        raise ValueError(f"cannot take {num_frames} frames of a video with {num_video_frames}")
    if strategy == "headtail" and num_frames % 2:
        raise ValueError(f"frame sampling 'headtail' needs an even frame count, not {num_frames}")
    # Spread short videos evenly, all others by the strategy.
    if num_video_frames < num_frames:
        return _floors(num_video_frames, num_frames)
    return STRATEGIES[strategy](num_video_frames, num_frames, rng).astype(np.int64)


def clip_indices(
    strategy: str,
    *,
    num_video_frames: int,
    num_frames: int,
    num_clips: int,
    independent: bool = False,
    rng: np.random.Generator | None,
) -> np.ndarray:
    """Choose ``num_frames`` frames of each of ``num_clips`` clips of a video.

    Clip ``c`` reads the frames ``[floor(c * V / C), floor((c + 1) * V / C))`` as
    :func:`frame_indices` would read a video of that length: one clip reads the whole video. Where
    there are fewer frames than clips, some clips read the same frame. Independent clips each read
    the whole video and may overlap, as ClipBERT (arXiv 2102.06183) trains. Clips draw from the
    generator in turn.

    Returns:
        (C, n) int64, all within [0, V); each row is in increasing order, and unless the clips are
        independent, so are the rows one after the other.
    """
    if num_clips < 1:
        raise ValueError(f"cannot take {num_clips} clips of a video")
    clips = []
    for clip in range(num_clips):
        # Find the clip's span of frames, the whole video for independent clips.
        first, end = (0, num_clips) if independent else (clip, clip + 1)
        start = first * num_video_frames // num_clips
        stop = end * num_video_frames // num_clips
        span = max(stop - start, min(num_video_frames, 1))  # never empty, unless the video is
        # Sample within the span.
        chosen = frame_indices(strategy, num_video_frames=span, num_frames=num_frames, rng=rng)
        clips.append(start + chosen)
    return np.stack(clips)


def select_frames(
    num_video_frames: int,
    *,
    strategy: str,
    num_frames: int,
    num_clips: int,
    independent: bool = False,
    rng: np.random.Generator | None,
) -> np.ndarray:
    """Choose as :func:`clip_indices` does: the (C * n,) indices of all clips in a row.

    With all but the frame count bound it is a decoder's ``FrameSelector``.
    """
    return clip_indices(
        strategy,
        num_video_frames=num_video_frames,
        num_frames=num_frames,
        num_clips=num_clips,
        independent=independent,
        # A copy, so that repeated calls with one frame count agree.
        rng=deepcopy(rng),
    ).ravel()


def evaluation_sampling(strategy: str) -> str:
    """The strategy to evaluate with: ``rand`` becomes ``uniform``, others stay, as in ALPRO."""
    return "uniform" if strategy == "rand" else strategy


def _floors(num_video_frames: int, num_frames: int) -> np.ndarray:
    return np.arange(num_frames, dtype=np.int64) * num_video_frames // num_frames


def _uniform(total: int, wanted: int, _rng: np.random.Generator | None) -> np.ndarray:
    return np.arange(wanted, dtype=np.int64) * (total // wanted)


def _nlvl_uniform(total: int, wanted: int, _rng: np.random.Generator | None) -> np.ndarray:
    return _floors(total, wanted)


def _nlvl_rand(total: int, wanted: int, rng: np.random.Generator | None) -> np.ndarray:
    starts = _floors(total, wanted)
    return starts + _given(rng).integers(0, np.diff(starts, append=total))


def _rand(total: int, wanted: int, rng: np.random.Generator | None) -> np.ndarray:
    return np.sort(_given(rng).choice(total, size=wanted, replace=False))


def _headtail(total: int, wanted: int, rng: np.random.Generator | None) -> np.ndarray:
    middle, half = total // 2, wanted // 2
    rng = _given(rng)
    head = np.sort(rng.choice(middle, size=half, replace=False))
    tail = np.sort(rng.choice(total - middle, size=half, replace=False)) + middle
    return np.concatenate([head, tail])


def _start(_total: int, wanted: int, _rng: np.random.Generator | None) -> np.ndarray:
    return np.arange(wanted)


def _middle(total: int, wanted: int, _rng: np.random.Generator | None) -> np.ndarray:
    return np.arange(wanted) + (total - wanted) // 2


def _end(total: int, wanted: int, _rng: np.random.Generator | None) -> np.ndarray:
    return np.arange(total - wanted, total)


def _segment(total: int, wanted: int, rng: np.random.Generator | None) -> np.ndarray:
    """Segment ``i`` is ``[i*V/n, (i+1)*V/n)``; positions are real numbers, then rounded down."""
    offsets = np.full(wanted, 0.5) if rng is None else rng.random(wanted)
    positions = (np.arange(wanted) + offsets) * total / wanted
    return np.minimum(np.floor(positions), total - 1)


def _given(rng: np.random.Generator | None) -> np.random.Generator:
    if rng is None:
        raise ValueError("this frame sampling is random and needs a generator")
    return rng


STRATEGIES: dict[str, Sampler] = {
    "uniform": _uniform,
    "nlvl_uniform": _nlvl_uniform,
    "nlvl_rand": _nlvl_rand,
    "rand": _rand,
    "headtail": _headtail,
    "start": _start,
    "middle": _middle,
    "end": _end,
    "segment": _segment,
}
