"""State dicts in files of weights: found in whatever they are wrapped, and read."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from alpro.errors import InputError
from alpro.modeling.state_dict_maps import (
    Chosen,
    StateDict,
    choose_state_dict,
    other_model,
    unwrapped,
)
from alpro.quoting import listed
from alpro.training.checkpoints import is_restore_state
from alpro.training.inert_pickle import Foreign
from alpro.training.stored_tensors import StoredTensor, UnreadableTensorError
from alpro.training.weight_files import MAX_SHOWN, kind_of, names_in, open_weights

logger = logging.getLogger(__name__)

REMEDY = "Save the weights alone: torch.save(model.state_dict(), 'weights.pt')."


def read_shapes(path: Path, roots: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor of a checkpoint whose names begin with some roots.

    Raises:
        InputError: the file is none.
    """
    with open_weights(path) as content:
        tensors, chosen = _chosen(path, content, roots)
        return {name: tensors[there].shape for name, there in chosen.names.items()}


def read_state(path: Path, *roots: Sequence[str]) -> StateDict:
    """Read the state dict in a file whose names begin with the first roots that fit.

    Raises:
        InputError: the file holds none.
    """
    with open_weights(path) as content:
        tensors, chosen = _chosen(path, content, *roots)
        state: StateDict = {}
        read: dict[object, Tensor] = {}  # tied tensors have the same numbers
        for name, there in chosen.names.items():
            stored = tensors[there]
            try:
                if stored.identity not in read:
                    read[stored.identity] = stored.read()
                state[name] = read[stored.identity]
            except UnreadableTensorError as error:
                raise InputError(f"{path}: {there} {error}.") from error
        return state


def _chosen(
    path: Path, content: object, *roots: Sequence[str]
) -> tuple[dict[str, StoredTensor], Chosen]:
    """Tensors of a file by their names there, and the state dict that is wanted of them."""
    if isinstance(content, dict) and is_restore_state(content):
        raise InputError(
            f"{path}: this is a restore file, with which a run continues itself. Name one of the "
            f"run's checkpoints, such as {path.parent / 'ckpt' / 'model_step_best.pt'}."
        )
    try:
        values = names_in(content)
        tensors = {name: x for name, x in values.items() if isinstance(x, StoredTensor)}
        found = (choose_state_dict(tensors, roots=some) for some in roots)
        chosen = next((one for one in found if one.names), None)
    except ValueError as error:
        raise InputError(f"{path}: {error}.") from error
    others = {name: value for name, value in values.items() if name not in tensors}
    if chosen is None:
        raise InputError(f"{path}: {_no_weights(content, tensors, others, roots[0])}")
    for name, value in others.items():
        wrapper, plain = unwrapped(name, roots=[root for some in roots for root in some])
        is_setting = "." not in plain and isinstance(value, str | int | float | None)
        if plain and wrapper == chosen.wrapper and not is_setting:
            raise InputError(f"{path}: {name} is {kind_of(value)}, not a tensor.")
    _log_choice(path, chosen, others, num_others=len(tensors) - len(chosen.names))
    return tensors, chosen


def _no_weights(
    content: object,
    tensors: Mapping[str, object],
    others: Mapping[str, object],
    roots: Sequence[str],
) -> str:
    """Describe what a file holds in place of the weights that are wanted."""
    wanted = f"names such as {', '.join(roots[:3])}"
    if not tensors:
        held = [f"{kind_of(value)} ({name or 'the whole'})" for name, value in others.items()]
        found = ", ".join(held[:3]) or "nothing"
        return f"expected a dict of tensors with {wanted}, found {found}. {REMEDY}"
    if list(tensors) == [""]:
        return f"expected a dict of tensors, found {kind_of(content)}. {REMEDY}"
    first = ", ".join(list(tensors)[:3])
    return (
        f"this checkpoint is of another architecture: none of its {len(tensors)} tensors has a "
        f"name that is wanted ({wanted}); the first are {first}.{_hint(tensors)}"
    )


def _hint(names: Iterable[str]) -> str:
    model = other_model(names)
    return f" By its names it is {model}." if model else ""


def hint_of(path: Path) -> str:
    """Sentence that names a well-known model by the names in its file; empty for others."""
    with open_weights(path) as content:
        return _hint(names_in(content)).strip()


def _log_choice(
    path: Path, chosen: Chosen, others: Mapping[str, object], *, num_others: int
) -> None:
    """Log what of a file is read and what is left alone, if it holds more than a state dict."""
    objects = {value.name for value in others.values() if isinstance(value, Foreign)}
    objects.discard("_codecs.encode")  # of bytes
    if chosen.wrapper:
        logger.info("%s: the weights are those under %s", path, chosen.wrapper.strip("./"))
    if num_others:
        places = [place.strip("./") or "no name of their own" for place in chosen.others]
        of = f", also weights under {', '.join(places)}" if places else ""
        logger.info("%s: %d other tensors are not read%s", path, num_others, of)
    if objects:
        named = listed(sorted(name[:MAX_SHOWN] for name in objects))
        logger.info("%s: objects of other classes are left alone: %s", path, named)
