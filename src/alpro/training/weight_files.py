"""Files and folders of weights: which file to take, what it holds, and shards of one model."""

from __future__ import annotations

import logging
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from fnmatch import filter as names_like
from functools import partial
from pathlib import Path
from typing import Any, cast

from alpro.errors import InputError
from alpro.quoting import shortened
from alpro.training.file_kinds import Format, format_of
from alpro.training.inert_pickle import MAX_NAME, Foreign
from alpro.training.stored_tensors import (
    DAMAGED,
    BrokenFileError,
    StoredTensor,
    UnreadableTensorError,
    read_archive,
    read_legacy,
    read_safetensors,
)
from alpro.user_files import JsonError, read_json, reason_of, why_unreadable

logger = logging.getLogger(__name__)

INDEX = ".index.json"  # ending of the list of a model's shards
WEIGHT_FILES = (
    *("model.safetensors", f"*.safetensors{INDEX}", "pytorch_model.bin", f"*.bin{INDEX}"),
    *("*.safetensors", "*.pth", "*.pyth", "*.pt", "*.bin", "*.ckpt"),
)
"""Names of weights in a folder; the first pattern that fits decides."""
_OTHER_FILES = re.compile(  # what training leaves beside weights
    r"optimizer|scheduler|scaler|training_args|rng_state|adapter_model|random_states"
)
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{1,5})-of-(?P<count>\d{1,5})(?P<ending>\.\w+)")

MAX_SHARDS = 1000
MAX_DEPTH = 32  # of values in one another
MAX_NAME_CHARACTERS = 1 << 28  # in all names of a file
MAX_SHOWN = 100  # characters of a name
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, tarfile.TarError),
    *(ValueError, OverflowError, NotImplementedError),
)


class UnreadableValueError(ValueError):
    """A value in a file that cannot be read; the message names its place and says why."""


def find_weights(path: Path, *, key: str, source: str) -> Path:
    """Name the weights file: the path itself, or a file in the folder that it names.

    Args:
        path: file or folder.
        key: config key to name in the error.
        source: where such weights are to be had, for the error.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    if not os.path.isdir(path):
        if reason := why_unreadable(path):
            absent = "no such file" in reason
            problem = f"no weights at {path}" if absent else f"{path} {reason}"
            raise _missing(f"{key}: {problem}", source)
        return path
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        raise _missing(f"{key}: {path}: cannot be read: {reason_of(error)}", source) from error
    names = [name for name in names if not _OTHER_FILES.search(name)]
    found = [name for pattern in WEIGHT_FILES for name in names_like(names, pattern)]
    if not found:
        raise _missing(f"{key}: no weights at {path}", source)
    others = [name for name in dict.fromkeys(found) if name != found[0] and not _SHARD.match(name)]
    if others:
        logger.info("%s: taking %s; not read: %s", path, found[0], ", ".join(others))
    return path / found[0]


def _missing(problem: str, source: str) -> InputError:
    return InputError(
        f"{problem}. Put {source} there; or name a whole checkpoint as e2e_weights_path; or set "
        "random_init to 1 if random weights are meant."
    )


@contextmanager
def open_weights(path: Path) -> Iterator[Any]:
    """Open a file of weights, or all shards of a model of which the path names the index or one.

    Yields:
        Plain values, `StoredTensor` and `Foreign`, see :func:`read_archive`. The tensors can be
        read inside the context.

    Raises:
        InputError: a file is missing, cannot be read or is something else, naming it.
    """
    with ExitStack() as stack:
        if path.name.endswith(INDEX):
            listed = _read_index(path)
            files = dict.fromkeys(listed.values())
            contents = {file: stack.enter_context(_open(file)) for file in files}
            for name, file in listed.items():
                if not isinstance(contents[file], dict) or name not in contents[file]:
                    raise InputError(f"{path}: it lists {name} in {file.name}, which lacks it.")
            yield _merged(contents)
        elif shards := _shards_of(path):
            yield _merged({file: stack.enter_context(_open(file)) for file in shards})
        else:
            yield stack.enter_context(_open(path))


def _read_index(path: Path) -> dict[str, Path]:
    """File of each tensor of a sharded model; all are in the index's folder."""
    try:
        index = read_json(path)
    except JsonError as error:
        raise InputError(f"{path}: not an index of shards: {error.reason}.") from error
    listed = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(listed, dict) or not listed:
        raise InputError(
            f"{path}: this index of shards lists no tensors (weight_map). Get the file again, or "
            "name one of the shards; all are then read."
        )
    for name, file in listed.items():
        is_name = isinstance(file, str) and re.fullmatch(r"[^/\0]+", file)
        if not is_name or file in (".", ".."):
            raise InputError(
                f"{path}: {name} is in {file!r}, which is no file name. Shards are in the folder "
                "of their index."
            )
    return {name: path.with_name(file) for name, file in listed.items()}


def _shards_of(path: Path) -> list[Path]:
    """All shards of a model of which a path names one; none if it names none."""
    match = _SHARD.fullmatch(path.name)
    if match is None or not 1 < int(match["count"]) <= MAX_SHARDS:
        return []
    width = len(match["number"])
    numbers = range(1, int(match["count"]) + 1)
    names = (
        f"{match['stem']}-{number:0{width}}-of-{match['count']}{match['ending']}"
        for number in numbers
    )
    return [path.with_name(name) for name in names]


def _merged(contents: Mapping[Path, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for file, content in contents.items():
        for name, value in content.items() if isinstance(content, dict) else ():
            if name in merged:
                raise InputError(f"{file}: another shard of the model holds {name}, too.")
            merged[name] = value
    return merged


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    if reason := why_unreadable(path):
        is_missing = reason == "there is no such file"
        raise InputError(f"{path}: {'there is no such checkpoint file' if is_missing else reason}.")
    with path.open("rb") as file:
        try:
            kind = format_of(file, path)
            if kind is Format.SAFETENSORS:
                content: Any = read_safetensors(path)
            else:
                content = read_archive(file) if kind is Format.ARCHIVE else read_legacy(file)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {reason_of(error)}.") from error
        except BrokenFileError as error:
            raise InputError(f"{path}: {error}.") from error
        except _BROKEN as error:
            raise InputError(f"{path}: {DAMAGED}.") from error
        yield content


def names_in(content: Any) -> dict[str, Any]:
    """Name each value in a file's content after its place.

    Between a mapping and its entry stands a "/", as in "model/visual_encoder.model.cls_token".
    Modules that were saved whole are read as the state dicts of their parameters and buffers.

    Raises:
        ValueError: the names would fill the memory.
    """
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
    """Entries of a mapping, or of a module that was saved whole; None for other values."""
    if isinstance(value, Foreign):
        state = value.state
        if value.items or not (isinstance(state, dict) and isinstance(state.get("_modules"), dict)):
            return value.items or None
        parts = [state.get(key) for key in ("_parameters", "_buffers", "_modules")]
        entries = {k: v for part in parts if isinstance(part, dict) for k, v in part.items()}
        left_out = state.get("_non_persistent_buffers_set")
        names = left_out if isinstance(left_out, list) else []
        return {k: part for k, part in entries.items() if part is not None and k not in names}
    if isinstance(value, list | tuple) and is_whole:
        return dict(enumerate(value))
    return value if isinstance(value, dict) and value else None


def read_weights(path: Path) -> dict[str, Any]:
    """Read all that a file of tensors and plain values holds, onto the CPU.

    Raises:
        InputError: it is missing, is something else, or holds what is not read, naming it.
    """
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
    """Read the tensors in a file's content, and leave its plain values as they are.

    Raises:
        UnreadableValueError: it holds an object or tensor that cannot be read, naming its place.
    """
    return _loaded(content, place="", depth=0, done={})


def _loaded(value: Any, *, place: str, depth: int, done: dict[int, Any]) -> Any:
    if id(value) in done:
        return done[id(value)]
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
