"""Schedules and AdamW against the numbers of the other originals, where they are present."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from alpro.optimization.optimizer import (
    ParameterGroup,
    build_optimizer,
    learning_rate_at,
    set_learning_rate,
)
from tests.shared_data import shared_data

_SHARED = shared_data()
needs_goldens = pytest.mark.skipif(_SHARED is None, reason="the golden numbers are absent")


def golden(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    assert _SHARED is not None
    folder = _SHARED / "golden"
    with np.load(folder / f"{name}.npz") as arrays:
        return json.loads((folder / f"{name}.json").read_text()), dict(arrays)


@needs_goldens
def test_warmup_cosine_agrees_with_t2vlp() -> None:
    schedule = golden("t2vlp_misc_a")[0]["schedule"]
    for warmup, factors in schedule["warmup_cosine"].items():
        rates = [
            learning_rate_at(
                1 + k,
                decay="warmup_cosine",
                learning_rate=1.0,
                num_train_steps=schedule["total_steps"],
                warmup_ratio=float(warmup),
            )
            for k in range(len(factors))
        ]
        assert rates == pytest.approx(factors, abs=1e-8)


@needs_goldens
def test_adamw_with_decay_last_agrees_with_clipbert() -> None:
    _, arrays = golden("clipbert_misc_a")
    weight = nn.Parameter(torch.from_numpy(arrays["adamw_w0"]))
    bias = nn.Parameter(torch.from_numpy(arrays["adamw_b0"]))
    optimizer = build_optimizer(
        [ParameterGroup([weight], 1.0, 0.01), ParameterGroup([bias], 1.0, 0.0)],
        algorithm="adamw_decay_last",
        learning_rate=0.01,
        betas=(0.9, 0.98),
    )
    for update in range(6):
        weight.grad = torch.from_numpy(arrays["adamw_grad_w"][update])
        bias.grad = torch.from_numpy(arrays["adamw_grad_b"][update])
        set_learning_rate(optimizer, 0.01 * (update + 1) / 6)
        optimizer.step()
        np.testing.assert_allclose(weight.detach(), arrays["adamw_w"][update], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(bias.detach(), arrays["adamw_b"][update], rtol=1e-5, atol=1e-7)
