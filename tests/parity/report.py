"""What a parity check found, and how close is close enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

ARRAY_TOLERANCE = 1e-5  # of the largest reference value
GRADIENT_TOLERANCE = 1e-4  # of the reference norm ...
GRADIENT_FLOOR = 1e-6  # ... plus this, for gradients that are rounding noise
NOISE_LIMIT = 1e-4  # of the norm of a gradient that is zero but for rounding
SUM_TOLERANCE = 1e-6  # of the sum of all weights


@dataclass(frozen=True)
class Finding:
    """One compared quantity of one case."""

    case: str
    quantity: str
    error: float
    tolerance: float
    note: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the error is within its tolerance; not a number is not."""
        return self.error <= self.tolerance


def compare_array(
    case: str,
    quantity: str,
    ours: Tensor | np.ndarray | float,
    reference: np.ndarray | float,
    *,
    tolerance: float = ARRAY_TOLERANCE,
) -> Finding:
    """Largest difference over largest reference value; a wrong shape is an infinite error."""
    if isinstance(ours, Tensor):
        ours = ours.detach().cpu().numpy()
    mine, theirs = np.asarray(ours, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if mine.shape != theirs.shape:
        note = f"shape {mine.shape}, expected {theirs.shape}"
        return Finding(case, quantity, float("inf"), tolerance, note)
    error = float(np.abs(mine - theirs).max() / np.abs(theirs).max())
    return Finding(case, quantity, error, tolerance)


def compare_keys(
    case: str, ours: Mapping[str, Tensor], reference: Mapping[str, Sequence[int]]
) -> Finding:
    """Number of names of a state dict that are missing, unexpected or of another shape."""
    mine = {key: list(value.shape) for key, value in ours.items()}
    wrong = [key for key in {*mine, *reference} if mine.get(key) != reference.get(key)]
    note = f"{len(mine)} names" + "".join(f"; {key}" for key in sorted(wrong)[:3])
    return Finding(case, "state dict", float(len(wrong)), 0.0, note)


def compare_gradients(
    case: str,
    model: nn.Module,
    reference: Mapping[str, float],
    *,
    noise: tuple[str, ...] = (),
    quantity: str = "gradient norms",
) -> Finding:
    """Worst error of a gradient norm as a share of what is allowed to that parameter.

    Names that end as one of `noise` have gradients that are zero but for rounding.
    """
    norms = {
        f"grad_norm/{name}": float(parameter.grad.double().norm())
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    different = sorted({*norms} ^ {*reference})
    if different:
        note = f"{len(different)} parameters differ in having a gradient: {different[0]}"
        return Finding(case, quantity, float("inf"), 1.0, note)
    shares = {
        key: abs(norms[key] - norm) / (GRADIENT_TOLERANCE * norm + GRADIENT_FLOOR)
        for key, norm in reference.items()
    }
    shares |= {key: norm / NOISE_LIMIT for key, norm in norms.items() if key.endswith(noise)}
    worst = max(shares, key=shares.__getitem__)
    name = worst.removeprefix("grad_norm/")
    note = f"as a share of the allowed error; {len(shares)} parameters; worst: {name}"
    return Finding(case, quantity, shares[worst], 1.0, note)


def table(findings: Sequence[Finding]) -> str:
    """The findings as aligned text."""
    header = ("case", "quantity", "error", "tolerance", "verdict", "note")
    rows = [
        (
            finding.case,
            finding.quantity,
            f"{finding.error:.2e}",
            f"{finding.tolerance:.0e}",
            "agrees" if finding.agrees else "DIFFERS",
            finding.note,
        )
        for finding in findings
    ]
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
             for row in (header, *rows))  # fmt: skip
    return "\n".join(line.rstrip() for line in lines)
