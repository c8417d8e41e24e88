from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from alpro.losses import similarity
from tests.losses.one_clip import contrastive_loss


def unit(*shape: int) -> Tensor:
    return functional.normalize(torch.randn(*shape), dim=-1)


def test_the_loss_of_two_pairs_by_hand() -> None:
    video = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    text = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    # Divided by 0.5: video 0 sees (2, 2), video 1 sees (0, 0); both texts see (2, 0).
    of_videos = math.log(2)
    of_texts = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(2))) / 2
    loss = contrastive_loss(video, text, all_video=video, all_text=text, temperature=0.5)
    assert loss.item() == pytest.approx((of_videos + of_texts) / 2)


def test_the_loss_of_one_pair_is_zero() -> None:
    video, text = unit(1, 4), unit(1, 4)
    assert contrastive_loss(video, text, all_video=video, all_text=text, temperature=0.1) == 0


def test_losses_of_shards_average_to_the_loss_of_the_batch() -> None:
    video, text = unit(6, 4), unit(6, 4)
    some = torch.zeros(6, 6, dtype=torch.bool)
    some[0, 2] = some[2, 0] = some[4, 2] = True
    for exclude in (None, some):
        whole = contrastive_loss(
            video, text, all_video=video, all_text=text, temperature=0.07, exclude=exclude
        )
        parts = [
            contrastive_loss(
                video[i : i + 2],
                text[i : i + 2],
                all_video=video,
                all_text=text,
                temperature=0.07,
                offset=i,
                exclude=None if exclude is None else exclude[i : i + 2],
            )
            for i in (0, 2, 4)
        ]
        torch.testing.assert_close(torch.stack(parts).mean(), whole)


def test_excluded_pairs_count_as_absent() -> None:
    video, text = unit(3, 4), unit(3, 4)
    video[1] = video[0]
    exclude = torch.tensor([[False, True, False], [True, False, False], [False, False, False]])
    expected = [
        functional.cross_entropy(a[[row]] @ b[keep].t() / 0.1, torch.tensor([keep.index(row)]))
        for a, b in ((video, text), (text, video))
        for row, keep in ((0, [0, 2]), (1, [1, 2]), (2, [0, 1, 2]))
    ]
    loss = contrastive_loss(
        video, text, all_video=video, all_text=text, temperature=0.1, exclude=exclude
    )
    torch.testing.assert_close(loss, torch.stack(expected).mean())


def test_temperature_and_both_sides_receive_gradients() -> None:
    video, text = unit(3, 4).requires_grad_(), unit(3, 4).requires_grad_()
    temperature = torch.tensor(0.07, requires_grad=True)
    contrastive_loss(
        video, text, all_video=video, all_text=text, temperature=temperature
    ).backward()
    for tensor in (video, text, temperature):
        assert tensor.grad is not None
        assert tensor.grad.abs().max() > 0


def test_the_loss_is_in_float32_under_autocast() -> None:
    video, text = unit(3, 4), unit(3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        inside = similarity(video, text, temperature=0.07)
    assert torch.equal(inside, similarity(video, text, temperature=0.07))
