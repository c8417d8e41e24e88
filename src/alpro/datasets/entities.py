"""The entity list: nouns that prompts are made of, the most frequent first.

One noun per line; what follows a space (or a tab), such as how often it occurs, is not read.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from alpro.errors import InputError, listed
from alpro.user_files import UnreadableFileError, read_lines

logger = logging.getLogger(__name__)

_REMEDY = "alpro extract-entities makes such a file"


def read_entities(path: Path, *, num_entities: int) -> tuple[str, ...]:
    """Read the first ``num_entities`` entities, in file order; blank lines are skipped.

    One that is there twice is taken twice, as in the original, and warned of.

    Raises:
        InputError: the file is missing, is no text, or holds fewer.
    """
    where = f"entity_file_path: {path}"
    try:
        numbered = list(islice(_entities(path), num_entities))
    except UnreadableFileError as error:
        raise InputError(f"{where}: {error.reason}; {_REMEDY}") from error
    if len(numbered) < num_entities:
        raise InputError(
            f"{where}: {len(numbered)} entities, but num_entities is {num_entities}; set "
            f"num_entities to {len(numbered)} at most, or give a longer file: {_REMEDY}"
        )
    _warn_of_repeated(numbered, where=where)
    return tuple(entity for _, entity in numbered)


def _warn_of_repeated(numbered: list[tuple[int, str]], *, where: str) -> None:
    lines_of: dict[str, list[str]] = defaultdict(list)
    for number, entity in numbered:
        lines_of[entity].append(str(number))
    repeated = [
        f"{entity!r} (lines {', '.join(lines)})"
        for entity, lines in lines_of.items()
        if len(lines) > 1
    ]
    if repeated:
        logger.warning(
            "%s: entities listed more than once (%d) share their probability: %s",
            *(where, len(repeated), listed(repeated)),
        )


def _entities(path: Path) -> Iterator[tuple[int, str]]:
    """The number and the first word of each line that has one."""
    for number, line in enumerate(read_lines(path), start=1):
        if text := line.strip():
            yield number, re.split("[ \t]", text, maxsplit=1)[0]
