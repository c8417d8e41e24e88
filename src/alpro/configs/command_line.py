"""Command-line parser: every config key is a flag, nested keys are dotted, nothing is abbreviated.

Not argparse: all mistakes are reported together with those of the JSON files, and the number of
flags for list entries (``--train_datasets.0.img``) is unlimited.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from alpro.configs.errors import COMMAND_LINE, ConfigIssue, closest_match, shorten, shortened
from alpro.configs.fields import Option, fields_of
from alpro.configs.parsing import UnfitError, expectation, from_texts, is_sequence, takes_table
from alpro.installation import with_resources
from alpro.launchers import value_of

_LAUNCHER_FLAGS = ("local_rank", "local-rank")  # of torch.distributed.launch and deepspeed
_UNSET = "is a launcher's, which has set no LOCAL_RANK"
_TORCHRUN = "Start the run with torchrun --nproc_per_node N, or leave the flag out."
_LOADER_FLAGS = ("config", "help", "print_config")
_MAX_INDEX_DIGITS = 6  # of an entry of a list


@dataclasses.dataclass
class Flags:
    """A command line, read but not yet checked against ranges and choices."""

    config: str | None = None
    help: bool = False
    print_config: bool = False
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Dotted key -> value as a JSON file would hold it."""
    renamed: dict[str, str] = dataclasses.field(default_factory=dict)
    """Key -> alias that was typed for it."""
    ignored: list[str] = dataclasses.field(default_factory=list)
    problems: list[ConfigIssue] = dataclasses.field(default_factory=list)


def parse_flags(config_class: Any, argv: Sequence[str]) -> Flags:
    """Parse `argv` (without the program name)."""
    flags = Flags()
    options = fields_of(config_class)
    for name, words in _split(argv, flags.problems):
        # Flags without a config key: those of the loader, of launchers and of the original.
        key = _own_key(name, config_class.ALIASES)
        if name in _LOADER_FLAGS:
            _take_loader_flag(flags, name, words)
        elif name in _LAUNCHER_FLAGS:
            if value_of("LOCAL_RANK") is None:
                flags.problems.append(ConfigIssue(COMMAND_LINE, f"--{name} {_UNSET}.", _TORCHRUN))
        elif name in config_class.INERT:
            flags.ignored.append(name)
        elif (target := _target(key, options)) is None:
            flags.problems.append(_unknown(name, options))
        else:
            # Of a repeated flag the last value counts, and the name that was typed for it.
            flags.renamed.pop(key, None)
            if name != key:
                flags.renamed[key] = name
            _take_value(flags, key, words, target)
    return flags


def _own_key(name: str, aliases: Mapping[str, str]) -> str:
    """Key of a flag; aliases of a list entry's parts begin with an asterisk: ``*.vis``."""
    head, *path = name.split(".")
    if name in aliases or len(path) < 2:
        return aliases.get(name, name)
    index, part, *entry = path
    return ".".join([aliases.get(head, head), index, aliases.get(f"*.{part}", part), *entry])


def _split(argv: Sequence[str], problems: list[ConfigIssue]) -> list[tuple[str, list[str]]]:
    """Group words into (flag name, words after it); ``--key=value`` holds exactly one."""
    groups: list[tuple[str, list[str]]] = []
    open_for_words = False
    for word in argv:
        # A flag takes the words up to the next flag, or what follows its equals sign.
        word = "--help" if word == "-h" else word
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            groups.append((name, [value] if equals else []))
            open_for_words = not equals
        elif open_for_words:
            groups[-1][1].append(word)
        else:
            text = f"{shorten(word)} belongs to no flag."
            example = f"--config {word}" if word.endswith(".json") else "--key value"
            remedy = f"Values follow their flag: {example}."
            problems.append(ConfigIssue(COMMAND_LINE, text, remedy))
    return groups


def _take_loader_flag(flags: Flags, name: str, words: list[str]) -> None:
    if name == "config":
        if len(words) == 1:
            flags.config = with_resources(os.path.expanduser(words[0]))
        else:
            flags.problems.append(ConfigIssue(COMMAND_LINE, "--config takes one file."))
    elif words:
        flags.problems.append(ConfigIssue(COMMAND_LINE, f"--{name} takes no value."))
    else:
        setattr(flags, name, True)


def _target(key: str, options: dict[str, Option]) -> Option | None:
    """Option of a flag: a key, ``datasets.0.field`` or ``datasets.0.field.entry``."""
    name, _, rest = key.partition(".")
    target = options.get(name)
    if target is None or not rest:
        return target
    if target.entry_class is None:
        return None
    # A part of a list entry: its index must be a number, its field one of the entry's class.
    index, _, path = rest.partition(".")
    if not index.isdecimal() or len(index) > _MAX_INDEX_DIGITS:
        return None
    field, dot, entry = path.partition(".")
    inner = fields_of(target.entry_class).get(field)
    if inner is None or not dot:
        return inner
    # An entry of a table, which holds a text.
    fits = entry and "." not in entry and takes_table(inner.type)
    return dataclasses.replace(inner, type=str) if fits else None


def _unknown(name: str, options: dict[str, Option]) -> ConfigIssue:
    head, *path = name.split(".")
    target = options.get(head)
    if path and target is not None and target.entry_class is not None:
        return _unknown_part(name, target)
    if path and target is not None:
        remedy = f"{head} has no parts: write --{head}."
    elif guess := closest_match(head, [*options, *_LOADER_FLAGS]):
        remedy = f"Did you mean --{shortened('.'.join([guess, *path]))}?"
    else:
        remedy = "--help lists all flags."
    return ConfigIssue(COMMAND_LINE, f"unknown flag --{shortened(name)}.", remedy)


def _unknown_part(name: str, target: Option) -> ConfigIssue:
    assert target.entry_class is not None
    fields, path = fields_of(target.entry_class), name.split(".")
    # Name the entry that was meant, the first one for an index that is none.
    is_index = path[1].isdecimal() and len(path[1]) <= _MAX_INDEX_DIGITS
    entry = f"--{target.name}.{path[1] if is_index else '0'}"
    guess = closest_match(path[-1], fields)
    meant = f"Did you mean {entry}.{guess}? Its parts" if guess else f"The parts of {entry}"
    remedy = f"{meant}: {', '.join(fields)}."
    return ConfigIssue(COMMAND_LINE, f"unknown flag --{shortened(name)}.", remedy)


def _take_value(flags: Flags, key: str, words: list[str], target: Option) -> None:
    if target.entry_class is not None:
        parts = ",".join(fields_of(target.entry_class))
        text = f"--{key} cannot be given whole."
        remedy = f"Give its parts: --{key}.0.{{{parts}}}."
        flags.problems.append(ConfigIssue(COMMAND_LINE, text, remedy))
        return
    try:
        flags.values[key] = from_texts(words, target.type)
    except UnfitError:
        name = flags.renamed.get(key, key)
        given = f"is {shorten(words[0] if len(words) == 1 else words)}" if words else "has no value"
        text = f"--{shortened(name)} {given}; expected {expectation(target.type, target.rule)}."
        flags.problems.append(ConfigIssue(COMMAND_LINE, text, _how_to_write(name, target, words)))


def _how_to_write(name: str, target: Option, words: list[str]) -> str:
    if is_sequence(target.type):
        return f"Write the values one after the other: --{name} A B."
    if target.type is bool and not words:
        return f"Write --{name} 1."
    if len(words) > 1:
        return "Put quotes around a value with spaces."
    return ""
