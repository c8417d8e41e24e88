from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from alpro.datasets.frame_sampling import (
    STRATEGIES,
    clip_indices,
    evaluation_sampling,
    frame_indices,
    select_frames,
)

_LENGTHS = [(1, 1), (1, 4), (3, 4), (4, 4), (5, 4), (7, 2), (17, 8), (63, 8), (300, 16)]


def _indices(strategy: str, total: int, wanted: int, seed: int | None = 0) -> list[int]:
    rng = None if seed is None else np.random.default_rng(seed)
    return frame_indices(strategy, num_video_frames=total, num_frames=wanted, rng=rng).tolist()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("total", "wanted"), _LENGTHS)
def test_every_strategy_gives_as_many_ordered_frames_of_the_video(
    strategy: str, total: int, wanted: int
) -> None:
    if strategy == "headtail" and wanted % 2:
        pytest.skip("headtail takes even counts")
    for seed in range(20):
        indices = _indices(strategy, total, wanted, seed)
        assert len(indices) == wanted
        assert indices == sorted(indices)
        assert indices[0] >= 0
        assert indices[-1] < total


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_short_videos_repeat_frames_evenly(strategy: str) -> None:
    assert _indices(strategy, 3, 4) == [0, 0, 1, 2]
    assert _indices(strategy, 1, 2) == [0, 0]


def test_published_uniform_truncates_its_step() -> None:
    assert _indices("uniform", 300, 8) == [0, 37, 74, 111, 148, 185, 222, 259]
    assert _indices("uniform", 63, 8) == [0, 7, 14, 21, 28, 35, 42, 49]


@pytest.mark.parametrize("total", [17, 34, 41, 61])
def test_uniform_is_trimmed_where_the_original_gives_a_frame_too_many(total: int) -> None:
    assert _indices("uniform", total, 7) == [i * (total // 7) for i in range(7)]


def test_fixed_strategies_by_hand() -> None:
    assert _indices("nlvl_uniform", 10, 4, None) == [0, 2, 5, 7]
    assert _indices("start", 10, 4, None) == [0, 1, 2, 3]
    assert _indices("middle", 10, 4, None) == [3, 4, 5, 6]
    assert _indices("end", 10, 4, None) == [6, 7, 8, 9]
    assert _indices("segment", 10, 4, None) == [1, 3, 6, 8]
    assert _indices("segment", 16, 4, None) == [2, 6, 10, 14]


def test_segment_takes_one_frame_of_each_segment_and_can_take_any() -> None:
    seen = set()
    for seed in range(300):
        indices = _indices("segment", 12, 3, seed)
        assert [index // 4 for index in indices] == [0, 1, 2]
        seen.update(indices)
    assert seen == set(range(12))


def test_nlvl_rand_stays_between_the_uniform_starts_and_reaches_the_last_frame() -> None:
    seen = set()
    for seed in range(300):
        indices = _indices("nlvl_rand", 10, 4, seed)
        for index, start, stop in zip(indices, [0, 2, 5, 7], [2, 5, 7, 10], strict=True):
            assert start <= index < stop
        seen.update(indices)
    assert seen == set(range(10))


def test_rand_takes_different_frames_evenly() -> None:
    counts = np.zeros(6)
    for seed in range(600):
        indices = _indices("rand", 6, 3, seed)
        assert len(set(indices)) == 3
        counts[indices] += 1
    assert np.abs(counts / 600 - 0.5).max() < 0.1


def test_headtail_takes_half_from_each_half() -> None:
    for seed in range(50):
        indices = _indices("headtail", 9, 4, seed)
        assert len(set(indices)) == 4
        assert sum(index < 4 for index in indices) == 2


def test_impossible_samplings_are_refused() -> None:
    with pytest.raises(ValueError, match="even frame count, not 3"):
        _indices("headtail", 10, 3)
    with pytest.raises(ValueError, match="'best'.*uniform"):
        _indices("best", 10, 3)
    with pytest.raises(ValueError, match="needs a generator"):
        _indices("rand", 10, 3, None)
    with pytest.raises(ValueError, match="video with 0"):
        _indices("uniform", 0, 3)


def test_only_rand_and_jitter_are_replaced_in_evaluation() -> None:
    assert evaluation_sampling("rand") == "uniform"
    assert evaluation_sampling("linspace_jitter") == "linspace"
    assert evaluation_sampling("interval") == "interval"
    assert all(evaluation_sampling(s) == s for s in STRATEGIES if s != "rand")


def _clips(
    strategy: str, total: int, wanted: int, clips: int, seed: int | None = None
) -> list[list[int]]:
    rng = None if seed is None else np.random.default_rng(seed)
    indices = clip_indices(
        strategy, num_video_frames=total, num_frames=wanted, num_clips=clips, rng=rng
    )
    assert indices.dtype == np.int64
    assert indices.shape == (clips, wanted)
    return indices.tolist()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("total", [1, 3, 9, 40])
def test_one_clip_reads_the_whole_video(strategy: str, total: int) -> None:
    for seed in range(5):
        assert _clips(strategy, total, 4, 1, seed) == [_indices(strategy, total, 4, seed)]


def test_clips_by_hand() -> None:
    assert _clips("uniform", 20, 2, 2) == [[0, 5], [10, 15]]
    assert _clips("nlvl_uniform", 10, 3, 3) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert _clips("end", 10, 2, 3) == [[1, 2], [4, 5], [8, 9]]
    assert _clips("segment", 16, 2, 2) == [[2, 6], [10, 14]]


def test_short_spans_repeat_frames() -> None:
    assert _clips("uniform", 5, 3, 2) == [[0, 0, 1], [2, 3, 4]]
    assert _clips("uniform", 2, 2, 5) == [[0, 0], [0, 0], [0, 0], [1, 1], [1, 1]]
    assert _clips("uniform", 1, 2, 3) == [[0, 0]] * 3


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("num_clips", [2, 3, 7])
def test_clips_stay_in_their_spans_in_increasing_order(strategy: str, num_clips: int) -> None:
    for total in range(1, 60, 4):
        clips = _clips(strategy, total, 4, num_clips, seed=total)
        flat = [index for clip in clips for index in clip]
        assert flat == sorted(flat)
        assert flat[-1] < total
        for number, clip in enumerate(clips):
            start = number * total // num_clips
            stop = max((number + 1) * total // num_clips, start + 1)
            assert start <= clip[0] <= clip[-1] < stop


def test_random_clips_draw_in_turn() -> None:
    """They do not repeat the first clip's choice."""
    clips = np.array(_clips("rand", 2000, 8, 2, seed=0))
    assert (clips[1] - 1000).tolist() != clips[0].tolist()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_independent_clips_each_read_the_whole_video(strategy: str) -> None:
    for total in (1, 3, 40):
        clips, in_turn = (np.random.default_rng(7) for _ in range(2))
        wanted: dict[str, Any] = {"num_video_frames": total, "num_frames": 4}
        found = clip_indices(strategy, num_clips=3, independent=True, rng=clips, **wanted)
        expected = [frame_indices(strategy, rng=in_turn, **wanted) for _ in range(3)]
        assert found.tolist() == np.stack(expected).tolist()


def test_clips_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(ValueError, match="0 clips"):
        _clips("uniform", 10, 3, 0)
    with pytest.raises(ValueError, match="video with 0"):
        _clips("uniform", 0, 3, 2)


@pytest.mark.parametrize("strategy", ["rand", "nlvl_rand", "headtail", "segment"])
def test_a_selector_that_is_asked_again_gives_the_same_answer(strategy: str) -> None:
    rng = np.random.default_rng(5)
    for num_video_frames in (90, 80, 90):
        wanted: dict[str, Any] = {
            "num_frames": 4,
            "num_clips": 2,
            "num_video_frames": num_video_frames,
        }
        selected = select_frames(strategy=strategy, rng=rng, **wanted)
        first = clip_indices(strategy, rng=np.random.default_rng(5), **wanted)
        assert selected.tolist() == first.ravel().tolist()


def _jittered(total: int, wanted: int, clips: int = 1, *, seed: int) -> list[int]:
    return [each for row in _clips("linspace_jitter", total, wanted, clips, seed) for each in row]


def test_linspace_spreads_the_frames_of_all_clips_together() -> None:
    assert _indices("linspace", 13, 12) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12]
    assert _indices("linspace", 7, 12) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6]
    assert _indices("linspace", 7, 1) == [0]
    assert _clips("linspace", 11, 2, 3) == [[0, 2], [4, 6], [8, 10]]
    both = clip_indices(
        "linspace", num_video_frames=11, num_frames=2, num_clips=2, independent=True, rng=None
    )
    assert both.tolist() == [[0, 10], [0, 10]]


@pytest.mark.parametrize("wanted", [1, 2, 3, 4, 12])
@pytest.mark.parametrize("total", [1, 2, 3, 4, 5, 10, 11, 100])
def test_jittered_frames_are_ordered_and_within_the_video(total: int, wanted: int) -> None:
    for seed in range(60):
        indices = _jittered(total, wanted, seed=seed)
        assert indices == sorted(indices)
        assert indices[0] >= 0
        assert indices[-1] < total


def test_ends_are_jittered_by_one_interval_at_most() -> None:
    draws = [_jittered(100, 12, seed=seed) for seed in range(300)]
    assert {draw[0] for draw in draws} == set(range(10))
    assert {draw[-1] for draw in draws} == set(range(90, 100))
    assert {draw[0] for draw in (_jittered(4, 1, seed=seed) for seed in range(60))} == set(range(4))
    halves = [_jittered(10, 3, seed=seed) for seed in range(200)]
    assert {draw[0] for draw in halves} == set(range(5))
    assert {draw[-1] for draw in halves} == set(range(5, 10))


def _at_intervals(
    total: int, wanted: int, clips: int, rate: int, seed: int | None = None
) -> list[list[int]]:
    rng = None if seed is None else np.random.default_rng(seed)
    return clip_indices(
        "interval",
        num_video_frames=total,
        num_frames=wanted,
        num_clips=clips,
        sample_rate=rate,
        rng=rng,
    ).tolist()


def test_centres_of_intervals_by_hand() -> None:
    # 3 of each 4 frames span 12, which can start at 9 places of 20.
    assert _at_intervals(20, 3, 1, 4) == [[4 + 2, 8 + 2, 12 + 2]]
    assert _at_intervals(20, 3, 3, 4) == [[3, 7, 11], [6, 10, 14], [9, 13, 17]]
    assert _at_intervals(12, 3, 3, 4) == [[2, 6, 10]] * 3
    assert _at_intervals(5, 3, 2, 4) == [[2, 1, 0]] * 2


@pytest.mark.parametrize("total", [1, 5, 12, 13, 40, 100])
def test_frames_at_intervals_are_the_drawn_ones_of_consecutive_intervals(total: int) -> None:
    for seed in range(50):
        for clip in _at_intervals(total, 3, 2, 4, seed):
            assert all(0 <= index < total for index in clip)
            steps = {(after - before) % total for before, after in pairwise(clip)}
            assert steps <= {step % total for step in range(1, 8)}


def test_sampling_at_intervals_needs_a_rate() -> None:
    with pytest.raises(ValueError, match="each 0 frames"):
        _at_intervals(10, 2, 1, 0)
