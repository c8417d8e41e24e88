"""Weight files and folders: choice of the file, its format, and shards of one model."""

from __future__ import annotations

import logging
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from enum import Enum
from fnmatch import filter as names_like
from pathlib import Path
from typing import IO, Any

from alpro.datasets.annotations import sha256_of
from alpro.errors import InputError, listed, shortened
from alpro.file_kinds import HEAD_BYTES, MODEL_CONFIG, MODEL_WEIGHTS, kind_of_content
from alpro.training.stored_tensors import (
    DAMAGED,
    BrokenFileError,
    read_archive,
    read_legacy,
    read_safetensors,
)
from alpro.user_files import NO_FILE, JsonError, read_json, reason_of, why_unreadable

logger = logging.getLogger(__name__)

INDEX = ".index.json"  # ending of a list of shards
WEIGHT_FILES = (
    *(MODEL_WEIGHTS, f"*.safetensors{INDEX}", "pytorch_model.bin", f"*.bin{INDEX}"),
    *("*.safetensors", "*.pth", "*.pyth", "*.pt", "*.bin", "*.ckpt"),
)
"""Names of weights in a folder, by preference."""
_OTHER_FILES = re.compile(  # other files that training writes
    r"optimizer|scheduler|scaler|training_args|rng_state|adapter_model|random_states"
)
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{1,5})-of-(?P<count>\d{1,5})(?P<ending>\.\w+)")

MAX_SHARDS = 1000
MAX_NAMED = 3  # members of an archive
MAX_READ = 1000  # members of a tar archive, whose names are spread over the file
MAX_HEADER_BYTES = 100_000_000  # as in the library
ZIP_MAGIC = b"PK"
LEGACY_START = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # in torch.save's first pickle before 1.6
WEIGHT_ENDINGS = (".pt", ".pth", ".pyth", ".bin", ".ckpt", ".safetensors", ".pkl", ".tar")

_PLAIN_PICKLE = (
    "a plain pickle, not one of torch.save. Where it was written, save the weights with "
    "torch.save(model.state_dict(), 'weights.pt')"
)
_READ = "weights are read from files of PyTorch (.pt, .pth, .bin) and of safetensors"
_TENSORFLOW_NAME = re.compile(r"\.(data-\d+-of-\d+|index|meta)$|\.pb$|^checkpoint$")
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, tarfile.TarError),
    *(ValueError, OverflowError, NotImplementedError),
)


def refuse_altered_weights(path: Path) -> None:
    """Refuse weights of a model folder whose config has another SHA-256 of them.

    Raises:
        InputError: they were altered, or the config cannot be read.
    """
    config = path.with_name(MODEL_CONFIG)
    if path.name != MODEL_WEIGHTS or not config.is_file():
        return
    try:
        expected = read_json(config).get("sha256", {}).get(path.name)
    except (JsonError, AttributeError) as error:
        raise InputError(f"{config}: is not the config of a model ({error})") from error
    if expected is not None:
        refuse_altered(path, expected)


def refuse_altered(path: Path, expected: str) -> None:
    """Refuse a file of a model folder that has another SHA-256.

    Raises:
        InputError: it has.
    """
    if sha256_of(path) != expected:
        raise InputError(
            f"{path}: is not the file that the model was exported with (SHA-256 differs). Copy "
            "the model folder again."
        )


def find_weights(path: Path, *, key: str, source: str) -> Path:
    """Return the weights file at a path: the file itself, or one in the folder.

    Args:
        path: file or folder.
        key: config key, for the error message.
        source: origin of such weights, for the error message.
    """
    # A file is taken as it is.
    if not os.path.isdir(path):
        if reason := why_unreadable(path):
            problem = f"no weights at {path}" if reason == NO_FILE else f"{path} {reason}"
            raise _missing(f"{key}: {problem}", source)
        return path

    # In a folder the file with the preferred name, which is logged if there is a choice.
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        raise _missing(f"{key}: {path}: cannot be read: {reason_of(error)}", source) from error
    names = [name for name in names if not _OTHER_FILES.search(name)]
    fitting = [name for pattern in WEIGHT_FILES for name in names_like(names, pattern)]
    if not fitting:
        raise _missing(f"{key}: no weights at {path}", source)
    others = [name for name in dict.fromkeys(fitting[1:]) if not _SHARD.match(name)]
    if others := [name for name in others if name != fitting[0]]:
        logger.info("%s: taking %s; not read: %s", path, fitting[0], ", ".join(others))
    return path / fitting[0]


def _missing(problem: str, source: str) -> InputError:
    return InputError(
        f"{problem}. Put {source} there; or name a whole checkpoint as e2e_weights_path; or set "
        "random_init to 1 if random weights are meant."
    )


@contextmanager
def open_weights(path: Path) -> Iterator[Any]:
    """Open a weight file, or all shards of a model, given the index or any shard.

    Yields:
        Plain values, `StoredTensor` and `Foreign`; tensors can be read inside the context.
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
    try:
        index = read_json(path)
    except JsonError as error:
        raise InputError(f"{path}: not an index of shards: {error.reason}.") from error
    # It maps tensor names to files beside it; a path could lead anywhere.
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
    match = _SHARD.fullmatch(path.name)
    if match is None or not 1 < int(match["count"]) <= MAX_SHARDS:
        return []
    width = len(match["number"])
    ending = f"of-{match['count']}{match['ending']}"
    numbers = range(1, int(match["count"]) + 1)
    return [path.with_name(f"{match['stem']}-{n:0{width}}-{ending}") for n in numbers]


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
    # Refuse unreadable files, other formats, then damaged files.
    if reason := why_unreadable(path):
        problem = "there is no such checkpoint file" if reason == NO_FILE else reason
        raise InputError(f"{path}: {problem}.")
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


class Format(Enum):
    """Readable weight formats."""

    ARCHIVE = "torch.save, since PyTorch 1.6, or torch.jit.save"
    LEGACY = "torch.save, before PyTorch 1.6"
    SAFETENSORS = "safetensors"


def format_of(file: IO[bytes], path: Path) -> Format:
    """Detect the format of a weight file by content; refuse other kinds by name."""
    # Readable formats, by their first bytes.
    size = os.fstat(file.fileno()).st_size
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if size == 0:
        raise BrokenFileError("the file is empty")
    if head.startswith(ZIP_MAGIC):
        return _format_of_zip(file)
    if head[:1] == b"\x80" and LEGACY_START in head[:32]:
        return Format.LEGACY
    # Safetensors: 8 bytes of length, then a JSON header.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < MAX_HEADER_BYTES:
        return Format.SAFETENSORS
    # Everything else is refused by its kind.
    if kind := _other_kind(head, file, path):
        raise _not_weights(kind)
    if path.suffix == ".safetensors":
        raise BrokenFileError(DAMAGED)
    raise _not_weights(f"something else; it begins with {head[:8]!r}. Download it again")


def _not_weights(kind: str) -> BrokenFileError:
    return BrokenFileError(f"not a file of PyTorch weights but {kind}")


def _other_kind(head: bytes, file: IO[bytes], path: Path) -> str | None:
    # Unambiguous kinds come before those whose first bytes are common.
    if head[257:262] == b"ustar":
        with tarfile.open(fileobj=file, mode="r:") as archive:
            names = [member.name for _, member in zip(range(MAX_READ), archive, strict=False)]
        return f"a tar archive that holds {_named(names)}. Unpack it and name the file in it"
    if _TENSORFLOW_NAME.search(path.name):
        return f"a part of a checkpoint of TensorFlow; {_READ}"
    if kind := kind_of_content(head):
        return kind.advice(_READ)
    if head.startswith(b"\x08") and (b"onnx" in head[:300] or b"pytorch" in head[:300]):
        return f"an ONNX model; {_READ}"
    if head[4:8] == b"ftyp":
        return "a video (MP4)"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return _PLAIN_PICKLE
    if kind_of_text := _kind_of_text(head):
        return kind_of_text
    if not any(head):
        return "zeros, as of a download that was broken off. Download it again"
    return None


def _format_of_zip(file: IO[bytes]) -> Format:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    file.seek(0)
    root = next(iter(names), "").split("/")[0]
    if f"{root}/data.pkl" in names:
        return Format.ARCHIVE
    if names and all(name.endswith(".npy") for name in names):
        raise _not_weights(f"an archive of NumPy (.npz); {_READ}")
    raise _not_weights(
        f"a ZIP archive that holds {_named(names)}. Unpack it and name the file in it"
    )


def _named(names: list[str]) -> str:
    few = sorted(names, key=lambda name: not name.endswith(WEIGHT_ENDINGS))[: MAX_NAMED + 1]
    return listed([shortened(name) for name in few], most=MAX_NAMED) or "nothing"


def _kind_of_text(head: bytes) -> str | None:
    text = head.decode("utf-8", errors="ignore")
    is_text = len(text.encode()) >= len(head) - 3  # the last character may be cut off
    is_text = is_text and all(c.isprintable() or c in "\r\n\t\f\ufeff" for c in text)
    if not (text and is_text):
        return None
    start, shown = text.lstrip("\ufeff \r\n\t"), shortened(" ".join(text.split()))
    if start.startswith("<"):
        return f"an XML text, as servers send for an error: {shown!r}. Download it again"
    if start.startswith(("{", "[")):
        return f"a JSON text: {shown!r}. Name the file that holds the weights"
    return f"a text: {shown!r}. Download it again"
