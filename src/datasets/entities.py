"""The entity list: nouns that prompts are made of, the most frequent first.

One noun per line; what follows a space, such as how often it occurs, is not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from src.errors import InputError

_REMEDY = "python -m src.tools.extract_entities makes such a file"


def read_entities(path: Path, *, num_entities: int) -> tuple[str, ...]:
    """Read the first ``num_entities`` entities, in file order; blank lines are skipped.

    Raises:
        InputError: the file is missing, is no text, holds fewer, or one of them twice.
    """
    where = f"entity_file_path: {path}"
    if not path.is_file():
        raise InputError(f"{where}: no such file; {_REMEDY}")
    lines_of: dict[str, int] = {}
    try:
        for number, entity in islice(_entities(path), num_entities):
            if entity in lines_of:
                raise InputError(
                    f"{where}: {entity!r} stands in line {lines_of[entity]} and in line {number}; "
                    "remove one"
                )
            lines_of[entity] = number
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 text ({error}); convert the file to UTF-8") from error
    if len(lines_of) < num_entities:
        raise InputError(
            f"{where}: {len(lines_of)} entities, but num_entities is {num_entities}; set "
            f"num_entities to {len(lines_of)} at most, or give a longer file: {_REMEDY}"
        )
    return tuple(lines_of)


def _entities(path: Path) -> Iterator[tuple[int, str]]:
    """The number and the first word of each line that has one."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if words := line.split(maxsplit=1):
                yield number, words[0]
