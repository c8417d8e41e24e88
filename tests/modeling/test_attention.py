from __future__ import annotations

import math

import pytest
import torch

from alpro.modeling.attention import Kernel, dot_product_attention, merge_heads, split_heads

KERNELS: list[Kernel] = ["plain", "sdpa", "auto"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_numbers_by_hand(kernel: Kernel) -> None:
    q = torch.tensor([[[[2.0, 0.0, 0.0, 0.0]]]])
    k = torch.tensor([[[[1.0, 0, 0, 0], [0, 1.0, 0, 0]]]])
    v = torch.tensor([[[[1.0, 0, 0, 0], [0, 1.0, 0, 0]]]])
    first = math.e / (math.e + 1)  # scores 2 / sqrt(4) and 0
    expected = torch.tensor([[[[first, 1 - first, 0, 0]]]])
    torch.testing.assert_close(dot_product_attention(q, k, v, kernel=kernel), expected)


@pytest.mark.parametrize("kernel", KERNELS)
def test_bias_hides_keys(kernel: Kernel) -> None:
    q, k, v = torch.randn(3, 2, 2, 5, 4).unbind()
    bias = torch.zeros(2, 1, 1, 5)
    bias[..., 3:] = -10000.0
    shown = dot_product_attention(q, k[:, :, :3], v[:, :, :3], kernel=kernel)
    torch.testing.assert_close(dot_product_attention(q, k, v, bias=bias, kernel=kernel), shown)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_agree(dtype: torch.dtype) -> None:
    q, k, v = torch.randn(3, 2, 2, 5, 4).to(dtype).unbind()
    expected = dot_product_attention(q.float(), k.float(), v.float(), kernel="plain")
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for kernel in KERNELS:
        ours = dot_product_attention(q, k, v, kernel=kernel).float()
        torch.testing.assert_close(ours, expected, atol=tolerance, rtol=tolerance)


def test_dropout_of_weights_keeps_the_mean() -> None:
    q, k = torch.zeros(2, 1, 1, 400, 4).unbind()
    v = torch.ones(1, 1, 400, 4)
    torch.manual_seed(0)
    dropped = dot_product_attention(q, k, v, dropout_p=0.5)
    assert dropped.std() > 0
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)


def test_heads_are_split_and_merged() -> None:
    x = torch.arange(24.0).view(1, 3, 8)
    heads = split_heads(x, 2)
    assert heads.shape == (1, 2, 3, 4)
    assert heads[0, 1, 0].tolist() == [4, 5, 6, 7]
    assert torch.equal(merge_heads(heads), x)
