"""Validation of pretraining: mean losses and accuracies over sets of matching pairs."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from alpro.distributed.engine import Engine, autocast
from alpro.errors import InputError
from alpro.evaluation.evaluation_set import (
    VALIDATION_SEED,
    Progress,
    VideoSet,
    check_unreadable,
)
from alpro.tasks.pretraining.batches import PretrainBatch


class Ratio(NamedTuple):
    """A share as a fraction, which adds up over batches."""

    hits: Tensor
    of: Tensor | int


@dataclass(frozen=True, slots=True)
class LossWithMetrics:
    """One loss of a batch, a mean over `count` items, with its accuracies."""

    loss: Tensor
    count: Tensor | int
    rates: Mapping[str, Ratio]

    def values(self, name: str) -> dict[str, Tensor]:
        """``<name>_loss`` and the shares in percent, each a scalar, without shares of nothing."""
        shares = {key: 100.0 * rate.hits / rate.of for key, rate in self.rates.items() if rate.of}
        return {f"{name}_loss": self.loss, **shares}


Measure = Callable[[PretrainBatch, torch.Generator], Mapping[str, LossWithMetrics]]
"""The losses of a batch by name; the generator makes all random draws."""


@dataclass(frozen=True, slots=True)
class PairSet(VideoSet):
    """Captioned videos or images, in batches that do not depend on the number of ranks.

    It has an id for each pair.
    """

    own_batches: Sequence[range]
    """Pairs of each of this rank's batches."""
    loader: DataLoader[PretrainBatch]
    """This rank's batches, without pairs that could not be read, which they list."""


@torch.inference_mode()
def mean_losses(
    sets: Sequence[PairSet],
    measure: Measure,
    *,
    engine: Engine,
    precision: str,
    allow_missing: bool,
    progress: Progress,
) -> dict[str, float]:
    """Mean losses and shares over all pairs of all sets; the model is in evaluation mode.

    The numbers are the same on every rank, and for every number of ranks: random draws depend on a
    batch's place in its set, and all sums are exact.

    Returns:
        ``loss``, the sum of the mean losses; ``<name>_loss`` and shares in percent.

    Raises:
        InputError: if a pair cannot be read and that is not allowed, or none can.
    """
    # Collect numerators and denominators of this rank's batches.
    terms: dict[str, list[float]] = defaultdict(list)
    for data in sets:
        unreadable = []
        batches = zip(data.own_batches, progress(data.loader, data.name, "batch"), strict=True)
        for place, batch in batches:
            unreadable += batch.unreadable
            if not batch.video_ids:
                continue
            generator = torch.Generator(engine.device)
            generator.manual_seed(VALIDATION_SEED + place.start)
            with autocast(precision, engine.device):
                losses = measure(batch.to(engine.device), generator)
            _note(terms, losses)
        lost = [video for part in engine.gather_objects(unreadable) for video in part]
        check_unreadable(data, lost, allowed=allow_missing)
    # Sum over the ranks; fsum does not depend on the order.
    gathered = engine.gather_objects(dict(terms))
    names = dict.fromkeys(name for part in gathered for name in part)
    totals = {name: math.fsum(x for part in gathered for x in part.get(name, ())) for name in names}
    if not totals:
        names_of_sets = ", ".join(data.name for data in sets)
        raise InputError(f"{names_of_sets}: none of the pairs can be read.")
    # Divide; the total loss is the sum of the means.
    means = {
        name: total / max(totals[f"{name}/"], 1.0)
        for name, total in totals.items()
        if not name.endswith("/")
    }
    loss = sum(value for name, value in means.items() if name.endswith("_loss"))
    return {"loss": loss, **means}


def _note(terms: dict[str, list[float]], losses: Mapping[str, LossWithMetrics]) -> None:
    """Append numerators under ``<key>``, denominators under ``<key>/``."""
    for name, one in losses.items():
        count = float(one.count)
        terms[f"{name}_loss"].append(float(one.loss) * count)
        terms[f"{name}_loss/"].append(count)
        for key, rate in one.rates.items():
            terms[key].append(100.0 * float(rate.hits))
            terms[f"{key}/"].append(float(rate.of))
