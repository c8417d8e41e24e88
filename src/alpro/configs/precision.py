"""Agreement of the two keys of a run's precision, ``precision`` and ``fp16``."""

from __future__ import annotations

from typing import Any

from alpro.configs.errors import ConfigIssue
from alpro.configs.sources import DEFAULT_SOURCE, MergedConfig, ValueOrigin


def resolve_precision(
    values: dict[str, Any], merged: MergedConfig, *, problems: list[ConfigIssue]
) -> None:
    """Make `precision` and `fp16` agree; the one from the higher source wins."""
    if "precision" not in values or "fp16" not in values:
        return
    # `auto`, or a source below that of `fp16`, follows `fp16`; in one source both must agree.
    precision, half = values["precision"], values["fp16"]
    half_origin, origin = merged.origin("fp16"), merged.origin("precision")
    overridden = half_origin.rank > origin.rank and half != (precision == "fp16")
    if precision == "auto" or overridden:
        precision = "fp16" if half else "fp32"
        source = f"{half_origin.source} (as fp16)" if half_origin.rank else DEFAULT_SOURCE
        merged.origins["precision"] = ValueOrigin(source, half_origin.place, half_origin.rank)
    elif half and precision != "fp16" and half_origin.rank == origin.rank:
        text = f"fp16 is 1, but precision is {precision}."
        problems.append(ConfigIssue(origin.place, text, "Remove fp16 or set it to 0."))
    values["precision"] = precision
    values["fp16"] = precision == "fp16"
