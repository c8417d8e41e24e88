"""Contents of weight files: state dicts in any wrapper, and plain values."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from alpro.errors import InputError, listed, shortened
from alpro.modeling.state_dict_adapter import (
    Chosen,
    StateDict,
    choose_state_dict,
    other_model,
    unwrapped,
)
from alpro.training.inert_pickle import MAX_NAME, Foreign
from alpro.training.stored_tensors import StoredTensor, UnreadableTensorError
from alpro.training.weight_files import open_weights, refuse_altered_weights

logger = logging.getLogger(__name__)

MAX_DEPTH = 32  # of nested values
MAX_NAME_CHARACTERS = 1 << 28  # in all names of a file
MAX_SHOWN = 100  # characters of a name
SCRIPTED = "__torch__."  # package of the classes of torch.jit.save
REMEDY = "Save the weights alone: torch.save(model.state_dict(), 'weights.pt')."


class UnreadableValueError(ValueError):
    """A value in a file that cannot be read; the message names its place and the reason."""


def read_shapes(path: Path, roots: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the state dict in a file whose names begin with the roots."""
    with open_weights(path) as content:
        tensors, chosen = _chosen(path, content, roots)
        return {name: tensors[there].shape for name, there in chosen.names.items()}


def read_state(path: Path, *roots: Sequence[str]) -> StateDict:
    """Read the state dict in a file whose names begin with the first fitting roots.

    Raises:
        InputError: the file has none, or is not the one that its model folder had.
    """
    refuse_altered_weights(path)
    with open_weights(path) as content:
        tensors, chosen = _chosen(path, content, *roots)
        state: StateDict = {}
        read: dict[object, Tensor] = {}  # tied tensors are read once
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
    if isinstance(content, dict) and content.keys() >= {"format", "model", "optimizer", "ranks"}:
        raise InputError(
            f"{path}: this is a restore file, with which a run continues itself. Name one of the "
            f"run's checkpoints, such as {path.parent / 'ckpt' / 'model_step_best.pt'}."
        )
    # Name every value, and choose the state dict with known names.
    try:
        values = names_in(content)
        tensors = {name: x for name, x in values.items() if isinstance(x, StoredTensor)}
        fitting = (choose_state_dict(tensors, roots=some) for some in roots)
        chosen = next((one for one in fitting if one.names), None)
    except ValueError as error:
        raise InputError(f"{path}: {error}.") from error
    others = {name: value for name, value in values.items() if name not in tensors}
    if chosen is None:
        raise InputError(f"{path}: {_no_weights(content, tensors, others, roots[0])}")
    # An object in place of a tensor would leave the weight at its initial value.
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
    wanted = f"names such as {', '.join(roots[:3])}"
    if not tensors:
        held = [f"{kind_of(value)} ({name or 'the whole'})" for name, value in others.items()]
        content_shown = ", ".join(held[:3]) or "nothing"
        return f"expected a dict of tensors with {wanted}, found {content_shown}. {REMEDY}"
    if list(tensors) == [""]:
        return f"expected a dict of tensors, found {kind_of(content)}. {REMEDY}"
    first = ", ".join(list(tensors)[:3])
    kind = "TorchScript archive" if _is_of_module(content) else "checkpoint"
    return (
        f"this {kind} is of another architecture: none of its {len(tensors)} tensors has a "
        f"name that is wanted ({wanted}); the first are {first}.{_hint(tensors)}"
    )


def _hint(names: Iterable[str]) -> str:
    model = other_model(names)
    return f" By its names it is {model}." if model else ""


def hint_of(path: Path) -> str:
    """Return a sentence that names a well-known model by its tensors; empty for others."""
    with open_weights(path) as content:
        return _hint(names_in(content)).strip()


def _log_choice(
    path: Path, chosen: Chosen, others: Mapping[str, object], *, num_others: int
) -> None:
    # Log what is read and ignored, if the file holds more than a state dict.
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


def names_in(content: Any) -> dict[str, Any]:
    """Name each value in a file's content by its place, as "model/visual_encoder.cls_token".

    Modules that were saved whole, by torch.save or torch.jit.save, count as state dicts of their
    parameters and buffers.

    Raises:
        ValueError: there are more names than any model has.
    """
    # Depth first, without recursion: files may nest deeply, or contain themselves.
    names: dict[str, Any] = {}
    pending: list[tuple[str, Any, int]] = [("", content, 0)]
    seen: set[int] = set()
    num_characters = 0
    while pending:
        place, value, depth = pending.pop()
        entries = _entries(value, is_whole=depth == 0)
        if entries is None or depth == MAX_DEPTH:
            names[place[:-1]] = value
        elif id(value) not in seen:
            seen.add(id(value))
            joint = "." if isinstance(value, Foreign) and not value.items else "/"
            inner = [
                (f"{place}{shortened(str(key), most=MAX_NAME)}{joint}", part, depth + 1)
                for key, part in entries.items()
            ]
            num_characters += sum(len(name) for name, *_ in inner)
            if num_characters > MAX_NAME_CHARACTERS:
                raise ValueError("more names than any model has")
            pending += reversed(inner)
    return names


def _entries(value: Any, *, is_whole: bool) -> Mapping[Any, Any] | None:
    """Entries of a mapping or of a whole module; None for other values."""
    if isinstance(value, Foreign):
        state = value.state
        # Of TorchScript, whose modules keep tensors, modules and settings side by side.
        if value.name.startswith(SCRIPTED) and isinstance(state, dict):
            return {k: part for k, part in state.items() if _is_of_module(part)}
        if value.items or not (isinstance(state, dict) and isinstance(state.get("_modules"), dict)):
            return value.items or None
        parts = [state.get(key) for key in ("_parameters", "_buffers", "_modules")]
        entries = {k: v for part in parts if isinstance(part, dict) for k, v in part.items()}
        # As in its state dict, without buffers that are not persistent.
        left_out = state.get("_non_persistent_buffers_set")
        names = left_out if isinstance(left_out, list) else []
        return {k: part for k, part in entries.items() if part is not None and k not in names}
    if isinstance(value, list | tuple) and is_whole:
        return dict(enumerate(value))
    return value if isinstance(value, dict) and value else None


def _is_of_module(part: object) -> bool:
    is_module = isinstance(part, Foreign) and part.name.startswith(SCRIPTED)
    return is_module or isinstance(part, StoredTensor)


def read_weights(path: Path) -> dict[str, Any]:
    """Read a dict of tensors and plain values, onto the CPU."""
    with open_weights(path) as content:
        if not isinstance(content, dict):
            raise InputError(
                f"{path}: expected a dict of tensors, found {kind_of(content)}; a released ALPRO "
                "checkpoint is a plain state dict."
            )
        try:
            return cast("dict[str, Any]", loaded(content))
        except UnreadableValueError as error:
            raise InputError(f"{path}: {error}.") from error


def kind_of(value: Any) -> str:
    """Name the class of a value in a file's content."""
    if isinstance(value, Foreign):
        return f"an object of {value.name[:MAX_SHOWN]}"
    return "Tensor" if isinstance(value, StoredTensor) else type(value).__name__


def loaded(content: Any) -> Any:
    """Read the tensors in a file's content; plain values stay as they are."""
    return _loaded(content, place="", depth=0, done={})


def _loaded(value: Any, *, place: str, depth: int, done: dict[int, Any]) -> Any:
    if id(value) in done:
        return done[id(value)]
    # Refuse values that are neither plain nor tensors.
    if isinstance(value, Foreign) or depth > MAX_DEPTH:
        raise UnreadableValueError(f"{place[1:] or 'it'} is {kind_of(value)}, which is not read")
    inner = partial(_loaded, depth=depth + 1, done=done)
    result = value
    if isinstance(value, StoredTensor):
        try:
            result = value.read()
        except UnreadableTensorError as error:
            raise UnreadableValueError(f"{place[1:]} {error}") from error
    elif isinstance(value, dict):
        result = {key: inner(part, place=f"{place}/{key}") for key, part in value.items()}
    elif isinstance(value, list | tuple):
        parts = [inner(part, place=f"{place}/{i}") for i, part in enumerate(value)]
        result = parts if isinstance(value, list) else tuple(parts)
    else:
        return value
    done[id(value)] = result
    return result
