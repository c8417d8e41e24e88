"""Checkpoints and starting weights, loaded into a family's model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import filter as names_like
from pathlib import Path

from torch import Tensor, nn

from alpro.configs.experiment import ExperimentConfig
from alpro.errors import InputError, pluralize
from alpro.families.family import CheckpointFormat, ModelFamily, Prepare
from alpro.modeling.state_dict_adapter import POSITION_IDS, compare, unusable
from alpro.training.state_dicts import hint_of, read_state

logger = logging.getLogger(__name__)

MAX_NAMED = 5


def load_checkpoint(
    model: nn.Module,
    path: Path,
    *,
    layout: CheckpointFormat,
    allowed_missing: Sequence[str] = (),
    silently_missing: Sequence[str] = (),
    prepare: Prepare | None = None,
) -> None:
    """Fill a model from a checkpoint of its family.

    The state dict may be wrapped, see `choose_state_dict`; embeddings are resized to the model, and
    heads of other tasks left out, as the family's format says.

    Args:
        model: takes the tensors.
        path: of the checkpoint.
        layout: the family's format.
        allowed_missing: patterns such as ``classifier.*``. Where the file has no tensor at all
            of a pattern, the model's stay as initialised.
        silently_missing: the same, but not logged.
        prepare: applied to the checkpoint's tensors first.

    Raises:
        InputError: if the file is of another architecture, naming keys and shapes, or none at all.
    """
    # Read the file, then fit names and shapes to the model.
    state = read_state(path, layout.roots)
    if prepare is not None:
        state = prepare(state)
    expected = model.state_dict()
    for note in layout.describe(state, expected):
        logger.info("%s: %s", path, note)
    try:
        adapted = layout.adapt(state, expected)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    # Load; a pattern may be missing as a whole. Position ids are filled in and count for nothing.
    relevant = [name for name in adapted if not name.endswith(POSITION_IDS)]
    patterns = (*allowed_missing, *silently_missing)
    absent = [pattern for pattern in patterns if not names_like(relevant, pattern)]
    fill(model, adapted, path=path, layout=layout, allowed_missing=absent)
    # Log what was loaded, and what stays as initialised.
    new = compare(adapted, model).missing
    for pattern in allowed_missing:
        if pattern in absent:
            tensors = pluralize(len(names_like(new, pattern)), "tensor")
            logger.info("%s: %s %s missing, left as initialised", path, tensors, pattern)
    num_loaded = len(expected) - len(new)
    logger.info("%s: %d of the %d tensors of the model loaded", path, num_loaded, len(expected))


def load_starting_weights(
    model: nn.Module,
    config: ExperimentConfig,
    *,
    family: ModelFamily,
    allowed_missing: Sequence[str] = (),
    prepare: Prepare | None = None,
) -> None:
    """Give a model its starting weights: a checkpoint's, those of its parts, or random ones.

    See `load_checkpoint` for `allowed_missing` and `prepare`, which only checkpoints need.

    Raises:
        InputError: if there is nothing to start from and ``random_init`` is not set, or a file does
            not fit.
    """
    # A checkpoint of the whole model goes first, weights of its parts last.
    if config.e2e_weights_path is not None:
        load_checkpoint(
            model,
            Path(config.e2e_weights_path),
            layout=family.checkpoint,
            allowed_missing=allowed_missing,
            prepare=prepare,
        )
    elif config.random_init:
        logger.info("starting from random weights (random_init)")
    elif not family.starting_weights.load(model, config):
        raise InputError(
            "e2e_weights_path: nothing to start from. Name a checkpoint there, or "
            f"{family.starting_weights.remedy}, or set random_init to 1 if random weights are "
            "meant."
        )


def fill(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    path: Path,
    layout: CheckpointFormat,
    prefix: str = "",
    allowed_missing: Sequence[str] = (),  # patterns of names that the file need not have
    wanted: str = "",  # sentence on what the file should be, for errors
) -> None:
    """Fill a model, or its part below a prefix, from tensors under its names.

    Raises:
        InputError: if tensors are missing, unknown, of other shapes, or not finite.
    """
    # Refuse a state dict of another architecture, naming keys and shapes.
    mismatch = compare(state, model, allowed_missing=[*allowed_missing, *layout.never_used])
    own = [key for key in mismatch.missing if key.startswith(prefix)]
    mismatch = replace(mismatch, missing=own)
    if mismatch:
        advice = f"{hint_of(path)} {wanted}".strip()
        listed = "\n".join(filter(None, [mismatch.describe(), advice]))
        raise InputError(
            f"{path}: this checkpoint is of another architecture than the model of "
            f"{' and '.join(layout.files)}:\n{listed}"
        )
    # Refuse tensors whose dtype or values cannot be used.
    if problems := unusable(state, model.state_dict()):
        listed = "\n".join(problems[:MAX_NAMED])
        rest = len(problems) - MAX_NAMED
        more = f"\n{rest} more" if rest > 0 else ""
        raise InputError(
            f"{path}: these tensors cannot be used:\n{listed}{more}\nName another checkpoint."
        )
    model.load_state_dict(dict(state), strict=False)
