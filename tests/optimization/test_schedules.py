from __future__ import annotations

import math

import pytest

from alpro.optimization.optimizer import learning_rate_at


def rates(decay: str, steps: range, *, warmup: float = 0.0, total: int = 10) -> list[float]:
    return [
        learning_rate_at(
            step,
            decay=decay,
            learning_rate=1.0,
            num_train_steps=total,
            warmup_ratio=warmup,
            milestones=[2, 5],
        )
        for step in steps
    ]


def test_linear_rises_falls_and_ends_on_the_smallest_rate() -> None:
    # K = 10 updates, W = 4 of them rise: step/4, then (10 - step)/6.
    expected = [1 / 4, 2 / 4, 3 / 4, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 1e-8]
    assert rates("linear", range(1, 11), warmup=0.4) == pytest.approx(expected)
    assert rates("linear", range(11, 13), warmup=0.4) == [1e-8, 1e-8]


def test_linear_without_and_with_nothing_but_warmup() -> None:
    assert rates("linear", range(1, 4)) == pytest.approx([0.9, 0.8, 0.7])
    assert rates("linear", range(9, 11), warmup=1.0) == pytest.approx([0.9, 1e-8])


def test_warmup_counts_whole_updates() -> None:
    # int(0.19 * 10) = 1: the first update is already at the peak.
    assert rates("linear", range(1, 3), warmup=0.19) == pytest.approx([1.0, 8 / 9])


def test_inverse_square_root() -> None:
    expected = [1 / 3, 2 / 3, 1, math.sqrt(3 / 4), math.sqrt(3 / 5)]
    assert rates("invsqrt", range(1, 6), warmup=0.3) == pytest.approx(expected)
    assert rates("invsqrt", range(4, 5)) == pytest.approx([0.5])


def test_multi_step_halves_after_each_milestone() -> None:
    assert rates("multi_step", range(1, 8)) == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_constant() -> None:
    assert rates("constant", range(1, 20), warmup=0.5) == [1.0] * 19


def test_cosine_rises_then_follows_half_a_cosine() -> None:
    # W = 2 of 10 updates rise; then (1 + cos(pi * (step - 2) / 8)) / 2.
    expected = [1 / 2, 1, 0.5 * (1 + math.cos(math.pi / 8)), 0.5 * (1 + math.cos(math.pi / 4))]
    assert rates("cosine", range(1, 5), warmup=0.2) == pytest.approx(expected)
    assert rates("cosine", range(6, 7), warmup=0.2) == pytest.approx([0.5])
    assert rates("cosine", range(10, 12), warmup=0.2) == [1e-8, 1e-8]


def test_warmup_cosine_counts_from_0_over_the_whole_run() -> None:
    # Update 1 is at progress 0, update 6 of 10 at 0.5; the warm-up is 0.25 of the run.
    expected = [1e-8, 0.4, 0.8, 0.5 * (1 + math.cos(0.3 * math.pi))]
    assert rates("warmup_cosine", range(1, 5), warmup=0.25) == pytest.approx(expected)
    assert rates("warmup_cosine", range(6, 7), warmup=0.25) == pytest.approx([0.5])
    assert rates("warmup_cosine", range(1, 2)) == [1.0]


def test_an_unknown_decay_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown decay 'sine'"):
        rates("sine", range(1, 2))
