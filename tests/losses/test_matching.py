from __future__ import annotations

import math

import pytest
import torch

from alpro.losses import (
    NO_NEGATIVE,
    matching_loss,
    negative_pairs,
    sample_hard_negatives,
    with_positives,
)


def test_the_matching_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    expected = (math.log(2) + math.log(1 + math.exp(2)) + math.log(1 + math.exp(-1))) / 3
    assert matching_loss(logits, 1).item() == pytest.approx(expected)


def test_two_pairs_are_each_others_negatives() -> None:
    video_for_text, text_for_video = sample_hard_negatives(torch.randn(2, 2), torch.randn(2, 2))
    assert video_for_text.tolist() == text_for_video.tolist() == [1, 0]


def test_a_model_that_has_diverged_draws_any_negatives() -> None:
    scores = torch.tensor([[0.0, torch.nan, torch.inf], [torch.nan] * 3, [torch.inf] * 3])
    for drawn in sample_hard_negatives(scores, scores):
        assert all(0 <= row < 3 and row != place for place, row in enumerate(drawn.tolist()))


def test_rows_of_the_negatives_are_in_the_original_order() -> None:
    negatives = negative_pairs(torch.tensor([2, 0, 1]), torch.tensor([1, 2, 0]))
    assert negatives.texts.tolist() == [0, 1, 2, 1, 2, 0]
    assert negatives.videos.tolist() == [2, 0, 1, 0, 1, 2]
    pairs = with_positives(negatives, 3)
    assert pairs.texts.tolist() == [0, 1, 2, 0, 1, 2, 1, 2, 0]
    assert pairs.videos.tolist() == [0, 1, 2, 2, 0, 1, 0, 1, 2]


def test_rows_of_a_later_process_begin_at_its_place() -> None:
    negatives = negative_pairs(torch.tensor([0, 2]), torch.tensor([4, 1]), offset=3)
    assert negatives.texts.tolist() == [3, 4, 4, 1]
    assert negatives.videos.tolist() == [0, 2, 3, 4]
    pairs = with_positives(negatives, 2, offset=3)
    assert pairs.texts.tolist() == [3, 4, 3, 4, 4, 1]
    assert pairs.videos.tolist() == [3, 4, 0, 2, 3, 4]


def test_a_later_process_draws_from_all_but_its_own_pair() -> None:
    scores = torch.zeros(2, 5)
    scores[0, 3] = scores[1, 4] = 100.0  # the two pairs themselves
    exclude = torch.zeros(2, 5, dtype=torch.bool)
    exclude[0, 0] = True
    draws = torch.stack(
        [sample_hard_negatives(scores, scores, offset=3, exclude=exclude)[0] for _ in range(200)]
    )  # (200, 2)
    assert [sorted(set(column)) for column in draws.t().tolist()] == [[1, 2, 4], [0, 1, 2, 3]]


def test_frequencies_follow_the_softmax_without_the_diagonal() -> None:
    scores = torch.tensor([[50.0, 1.0, 0.0], [0.0, 50.0, 2.0], [-1.0, 1.0, 50.0]])
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack(
        [sample_hard_negatives(scores.t(), scores, generator=generator)[0] for _ in range(4000)]
    )  # (4000, 3): a video for each text, from the second argument
    share = [(draws[:, row] == column).float().mean().item() for row, column in ((0, 1), (1, 2))]
    assert share[0] == pytest.approx(math.e / (math.e + 1), abs=0.03)
    assert share[1] == pytest.approx(math.exp(2) / (math.exp(2) + 1), abs=0.03)
    assert not (draws == torch.arange(3)).any()


def test_videos_are_drawn_before_texts() -> None:
    v2t, t2v = torch.randn(4, 4), torch.randn(4, 4)
    ours = sample_hard_negatives(v2t, t2v, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    own = torch.eye(4, dtype=torch.bool)
    expected = [
        torch.multinomial(
            similarity.masked_fill(own, -torch.inf).softmax(1), 1, generator=generator
        )[:, 0]
        for similarity in (t2v, v2t)
    ]
    assert torch.equal(torch.stack(ours), torch.stack(expected))


def test_one_pair_has_no_negative() -> None:
    drawn = sample_hard_negatives(torch.randn(1, 1), torch.randn(1, 1))
    assert [index.tolist() for index in drawn] == [[NO_NEGATIVE], [NO_NEGATIVE]]
    negatives = negative_pairs(*drawn)
    assert len(negatives.texts) == len(negatives.videos) == 0
    pairs = with_positives(negatives, 1)
    assert pairs.texts.tolist() == pairs.videos.tolist() == [0]
    assert matching_loss(torch.tensor([[0.0, 0.0]]), 1).item() == pytest.approx(math.log(2))


def test_excluded_pairs_are_never_drawn() -> None:
    exclude = torch.zeros(3, 3, dtype=torch.bool)
    exclude[0, 1] = exclude[1, 0] = True
    scores = torch.full((3, 3), -100.0)
    scores[0, 1] = scores[1, 0] = 100.0
    for _ in range(20):
        drawn = sample_hard_negatives(scores, scores, exclude=exclude)
        for index in drawn:
            assert index[:2].tolist() == [2, 2]


def test_rows_with_everything_excluded_are_left_out() -> None:
    exclude = torch.tensor([[0, 1, 1], [1, 0, 0], [1, 0, 0]], dtype=torch.bool)
    drawn = sample_hard_negatives(torch.randn(3, 3), torch.randn(3, 3), exclude=exclude)
    assert [index.tolist() for index in drawn] == [[NO_NEGATIVE, 2, 1], [NO_NEGATIVE, 2, 1]]
    negatives = negative_pairs(*drawn)
    assert negatives.texts.tolist() == [1, 2, 2, 1]
    assert negatives.videos.tolist() == [2, 1, 1, 2]


def test_small_temperatures_do_not_break_sampling() -> None:
    scores = torch.tensor([[0.0, 1e4, -1e4], [1e4, 0.0, -1e4], [1e4, -1e4, 0.0]])
    video_for_text, _ = sample_hard_negatives(scores, scores)
    assert video_for_text.tolist() == [1, 0, 0]
