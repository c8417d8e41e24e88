"""Frame sampling: the indices of the frames to decode.

The strategies ``uniform``, ``nlvl_uniform``, ``nlvl_rand``, ``rand`` and ``headtail`` choose as
ALPRO (arXiv 2112.09583) does. ``uniform``, which its published numbers use for evaluation,
truncates the *step* to an integer, so that up to the last ``n - 1`` frames can stay unseen;
``segment`` does not: it takes one frame from each of ``n`` equal segments, at random in training,
the centre in evaluation (temporal segment networks, arXiv 1608.00859). ``start``, ``middle`` and
``end`` take ``n`` consecutive frames.

``linspace``, ``linspace_jitter`` and ``interval`` choose as CLIP-ViP (arXiv 2209.06430) does, the
frames of all clips of a video together. Its ``interval``, with ``sample_rate`` above 0, draws in
evaluation, too; here evaluation takes centres.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np

Sampler = Callable[[int, int, "np.random.Generator | None"], np.ndarray]
CENTRED = ("segment", "interval")  # strategies that take centres without a generator


def frame_indices(
    strategy: str,
    *,
    num_video_frames: int,
    num_frames: int,
    sample_rate: int = 0,
    rng: np.random.Generator | None,
) -> np.ndarray:
    """Choose n = ``num_frames`` of V = ``num_video_frames`` frames by one of ``STRATEGIES``.

    A video with fewer frames than wanted repeats some: frame ``floor(i * V / n)``, whatever the
    strategy, but for the ``JOINT`` ones, which have a rule of their own. Without a generator,
    ``segment`` and ``interval`` take centres.

    Returns:
        (n,) int64, all within [0, V); in increasing order, but for ``interval``.
    """
    # Refuse impossible requests.
    if strategy not in STRATEGIES and strategy not in JOINT:
        known = ", ".join((*STRATEGIES, *JOINT))
        raise ValueError(f"frame sampling {strategy!r}: choose one of {known}")
    if num_video_frames < 1 or num_frames < 1:
        raise ValueError(f"cannot take {num_frames} frames of a video with {num_video_frames}")
    if strategy == "headtail" and num_frames % 2:
        raise ValueError(f"frame sampling 'headtail' needs an even frame count, not {num_frames}")
    # Spread short videos evenly, all others by the strategy.
    if strategy in JOINT:
        return JOINT[strategy](num_video_frames, num_frames, 1, sample_rate, rng)[0]
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
    sample_rate: int = 0,
    rng: np.random.Generator | None,
) -> np.ndarray:
    """Choose ``num_frames`` frames of each of ``num_clips`` clips of a video.

    Clip ``c`` reads the frames ``[floor(c * V / C), floor((c + 1) * V / C))`` as
    :func:`frame_indices` would read a video of that length: one clip reads the whole video. Where
    there are fewer frames than clips, some clips read the same frame. Independent clips each read
    the whole video and may overlap, as ClipBERT (arXiv 2102.06183) trains. Clips draw from the
    generator in turn. The ``JOINT`` strategies choose the frames of all clips at once.

    Returns:
        (C, n) int64, all within [0, V); but for ``interval``, each row is in increasing order, and
        unless the clips are independent, so are the rows one after the other.
    """
    if num_clips < 1:
        raise ValueError(f"cannot take {num_clips} clips of a video")
    if strategy in JOINT and not independent and num_video_frames > 0 < num_frames:
        return JOINT[strategy](num_video_frames, num_frames, num_clips, sample_rate, rng)
    clips = []
    for clip in range(num_clips):
        # Find the clip's span of frames, the whole video for independent clips.
        first, end = (0, num_clips) if independent else (clip, clip + 1)
        start = first * num_video_frames // num_clips
        stop = end * num_video_frames // num_clips
        span = max(stop - start, min(num_video_frames, 1))  # never empty, unless the video is
        # Sample within the span.
        chosen = frame_indices(
            strategy,
            num_video_frames=span,
            num_frames=num_frames,
            sample_rate=sample_rate,
            rng=rng,
        )
        clips.append(start + chosen)
    return np.stack(clips)


def select_frames(
    num_video_frames: int,
    *,
    num_used: int | None = None,
    with_middle: bool = False,
    rng: np.random.Generator | None,
    **sampling: Any,
) -> np.ndarray:
    """Choose as :func:`clip_indices` does: the (C * n,) indices of all clips in a row.

    With all but the frame count bound it is a decoder's ``FrameSelector``. It may choose from the
    first ``num_used`` frames alone, and add the one in the middle at the end.
    """
    num_video_frames = min(num_video_frames, num_used or num_video_frames)
    # A copy of the generator, so that repeated calls with one frame count agree.
    clips = clip_indices(num_video_frames=num_video_frames, rng=deepcopy(rng), **sampling)
    return np.append(clips, num_video_frames // 2) if with_middle else clips.ravel()


def evaluation_sampling(strategy: str) -> str:
    """The strategy to evaluate with: random ones become fixed where the original's do."""
    return {"rand": "uniform", "linspace_jitter": "linspace"}.get(strategy, strategy)


def _linspace_jitter(
    total: int, wanted: int, clips: int, _rate: int, rng: np.random.Generator | None
) -> np.ndarray:
    """``linspace`` whose ends are drawn from the first and last of its N - 1 intervals.

    For three frames and fewer that would cross or leave the video: then the ends are drawn from its
    halves, and a single frame from all of it.
    """
    num = wanted * clips
    interval = total - 1 if num == 1 else min(total // (num - 1), (total - 1) // 2)
    first = _given(rng).integers(0, interval + 1)
    last = _given(rng).integers(total - 1 - interval, total)
    return _between(int(first), int(last), wanted, clips)


def _between(first: int, last: int, wanted: int, clips: int) -> np.ndarray:
    return np.linspace(first, last, wanted * clips).astype(np.int64).reshape(clips, wanted)


def _interval(
    total: int, wanted: int, clips: int, rate: int, rng: np.random.Generator | None
) -> np.ndarray:
    """One of ``rate`` frames at a time, after a start in each of C equal parts of the video.

    The frames after the last are the first ones again. In evaluation, starts and frames are the
    centres of the ranges that they are drawn from; the original draws them there, too.
    """
    if rate < 1:
        raise ValueError(f"frame sampling 'interval' takes one of each {rate} frames")
    # Place the clips: one in each part, anywhere where parts are empty, all at 0 in a short video.
    room = total - wanted * rate + 1  # possible starts
    number = np.arange(clips)
    if rng is None:
        starts = np.maximum((number + 0.5) * room / clips, 0).astype(np.int64)
    elif room >= clips:
        starts = number * (room // clips) + rng.integers(0, room // clips, size=clips)
    elif room > 1 and total > clips:
        starts = np.sort(rng.integers(0, room, size=clips))
    else:
        starts = np.rint(number * max(room, 0) / clips).astype(np.int64)
    # Take a frame of each interval.
    frames = starts[:, None] + np.arange(wanted) * rate  # (C, n)
    offsets = rate // 2 if rng is None else rng.integers(0, rate, size=frames.shape)
    return (frames + offsets) % total


def _floors(num_video_frames: int, num_frames: int) -> np.ndarray:
    return np.arange(num_frames, dtype=np.int64) * num_video_frames // num_frames


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


def _segment(total: int, wanted: int, rng: np.random.Generator | None) -> np.ndarray:
    """Segment ``i`` is ``[i*V/n, (i+1)*V/n)``; positions are real numbers, then rounded down."""
    offsets = np.full(wanted, 0.5) if rng is None else rng.random(wanted)
    positions = (np.arange(wanted) + offsets) * total / wanted
    return np.minimum(np.floor(positions), total - 1)


def _given(rng: np.random.Generator | None) -> np.random.Generator:
    if rng is None:
        raise ValueError("this frame sampling is random and needs a generator")
    return rng


# Take the counts of frames and of wanted frames, and the generator; (n,).
STRATEGIES: dict[str, Sampler] = {
    "uniform": lambda total, wanted, _rng: np.arange(wanted) * (total // wanted),
    "nlvl_uniform": lambda total, wanted, _rng: _floors(total, wanted),
    "nlvl_rand": _nlvl_rand,
    "rand": _rand,
    "headtail": _headtail,
    "start": lambda _total, wanted, _rng: np.arange(wanted),
    "middle": lambda total, wanted, _rng: np.arange(wanted) + (total - wanted) // 2,
    "end": lambda total, wanted, _rng: np.arange(total - wanted, total),
    "segment": _segment,
}
# Take the counts of frames, frames of a clip and clips, the rate and the generator; (C, n).
JOINT: dict[str, Callable[..., np.ndarray]] = {
    "linspace": lambda total, wanted, clips, _rate, _rng: _between(0, total - 1, wanted, clips),
    "linspace_jitter": _linspace_jitter,
    "interval": _interval,
}
