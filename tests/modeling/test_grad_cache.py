from __future__ import annotations

import weakref
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from alpro.modeling.contracts import TextFeatures
from alpro.modeling.grad_cache import grad_cached
from tests.modeling.held import Held


def make_layers(*, dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 64), nn.GELU(), nn.Dropout(dropout), nn.Linear(64, 64), nn.GELU(),
        nn.Linear(64, 3),
    )  # fmt: skip


def gradients(layers: nn.Module, result: Tensor) -> list[Tensor]:
    """Of a loss in which every row depends on all others."""
    layers.zero_grad()
    (result @ result.t()).logsumexp(dim=1).sum().backward()
    return [p.grad.clone() for p in layers.parameters() if p.grad is not None]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6])
def test_values_and_gradients_are_those_of_all_rows_at_once(size: int) -> None:
    layers, rows = make_layers(), torch.randn(5, 4)
    whole, cut = layers(rows), grad_cached(layers, rows, size=size)
    torch.testing.assert_close(cut, whole, rtol=1e-6, atol=1e-6)
    for found, expected in zip(gradients(layers, cut), gradients(layers, whole), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_gradients_reach_what_is_used_beside_the_rows() -> None:
    shared, rows = torch.randn(6, 2, requires_grad=True), torch.tensor([5, 0, 0, 3, 1])
    results = [grad_cached(lambda some: shared[some].exp(), rows, size=size) for size in (0, 2)]
    found = [torch.autograd.grad(result.square().sum(), shared)[0] for result in results]
    torch.testing.assert_close(found[1], found[0])


def test_a_chunk_is_computed_again_with_the_same_random_numbers() -> None:
    layers, rows = make_layers(dropout=0.5), torch.randn(5, 4)
    torch.manual_seed(1)
    stored = torch.cat([layers(chunk) for chunk in rows.split(2)])
    torch.manual_seed(1)
    recomputed = grad_cached(layers, rows, size=2)
    torch.manual_seed(2)  # what is drawn between forward and backward pass changes nothing
    assert torch.equal(stored, recomputed)
    pairs = zip(gradients(layers, recomputed), gradients(layers, stored), strict=True)
    assert all(torch.equal(found, expected) for found, expected in pairs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_of_weights_are_added_up_in_their_own_precision(dtype: torch.dtype) -> None:
    layer = nn.Linear(1, 1, bias=False)
    with torch.autocast("cpu", dtype=dtype):
        result = grad_cached(layer, torch.ones(5000, 1), size=1)
    assert result.dtype == dtype
    result.sum(dtype=torch.float32).backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.item() == 5000  # 16 bits stop at 256 (bf16) or 2048 (fp16)


def test_several_tensors_in_and_out() -> None:
    ids, mask = torch.arange(10).view(5, 2), torch.tensor([[1, 0]] * 5)

    def encode(some_ids: Tensor, some_mask: Tensor) -> TextFeatures:
        tokens = some_ids[..., None] * some_mask[..., None] * weight
        return TextFeatures(tokens, some_mask, tokens[:, 0])

    weight = torch.ones(3, requires_grad=True)
    whole, cut = encode(ids, mask), grad_cached(encode, ids, mask, size=2)
    assert isinstance(cut, TextFeatures)
    assert all(torch.equal(*both) for both in zip(cut, whole, strict=True))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients_nothing_is_cut(context: type) -> None:
    compute = mock.Mock(wraps=functional.relu)
    rows = torch.randn(5, 4)
    with context():
        grad_cached(compute, rows, size=2)
    grad_cached(compute, rows, size=0)
    grad_cached(compute, rows, size=5)
    assert [len(call.args[0]) for call in compute.call_args_list] == [5, 5, 5]


def held_at_most(num_rows: int, *, size: int) -> int:
    """Bytes of hidden activations alive at the same moment, forward or backward."""
    layers = make_layers()
    held = Held([layers[0], layers[3]])
    grad_cached(layers, torch.randn(num_rows, 4), size=size).square().sum().backward()
    assert held.now == 0
    return held.most


def test_activations_of_one_chunk_are_held_at_a_time() -> None:
    one_chunk = held_at_most(2, size=0)
    assert one_chunk == 2 * 2 * 64 * 4
    assert held_at_most(12, size=0) == 6 * one_chunk
    assert held_at_most(6, size=2) == held_at_most(12, size=2) == one_chunk


def test_a_held_tensor_is_counted_until_it_is_freed() -> None:
    layer = nn.Linear(4, 8)
    held = Held([layer])
    first, second = layer(torch.randn(2, 4)), layer(torch.randn(1, 4))
    assert (held.now, held.most) == (96, 96)
    view, heartbeat = first[0], weakref.ref(first)
    del first
    assert held.now == 96  # a view keeps the numbers
    del view, second
    assert heartbeat() is None
    assert (held.now, held.most) == (0, 96)
