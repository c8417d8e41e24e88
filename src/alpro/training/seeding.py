"""Random state of a process. Data never uses it: a sample depends on (seed, epoch, index)."""

from typing import Any

import torch


def seed_everything(seed: int, *, rank: int = 0) -> None:
    """Seed PyTorch's generators, with ``rank`` differently on each rank.

    The generators feed weight initialisation, dropout, stochastic depth and the draw of negatives.
    """
    torch.manual_seed(seed + rank)


def random_state(device: torch.device) -> dict[str, Any]:
    """State of every generator that training draws from on this rank."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Take up a state made by :func:`random_state`."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
