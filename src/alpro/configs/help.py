"""Texts of ``--help`` and ``--print_config``."""

from __future__ import annotations

import inspect
import json
import textwrap
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alpro.configs.fields import Option, fields_of

_LINE_WIDTH = 100  # columns of --help
_FLAG_WIDTH = 32  # columns of the flag in --help; the text starts after them
_MOST_CHOICES = 10  # a longer list of choices is left to the field's help text
_VALUE_WIDTH = 56  # columns of a value in --print_config, unless it is longer

NOT_SET = object()
"""Placeholder of a missing value that is needed."""


@dataclass(frozen=True)
class Row:
    """One row of ``--print_config``."""

    key: str
    """Field of the config class, dotted for a part of a list."""
    value: Any
    source: str


Section = tuple[str, list[Row]]


def sections(config_class: type, rows: Sequence[Row]) -> list[Section]:
    """Sort rows into the topics of a config class."""
    options = fields_of(config_class)
    by_topic: dict[str, list[Row]] = {option.topic: [] for option in options.values()}
    for row in rows:
        by_topic[options[row.key.partition(".")[0]].topic].append(row)
    return list(by_topic.items())


def config_table(all_sections: Sequence[Section], warnings: Sequence[str]) -> str:
    """Format keys, values and sources in three columns, one section per topic."""
    rows = [row for _, section_rows in all_sections for row in section_rows]
    key_width = max(len(row.key) for row in rows)
    value_width = min(_VALUE_WIDTH, max(len(_value_text(row.value)) for row in rows))
    # One section per topic; of a path in the last column only the file name.
    lines = [f"{'key':<{key_width + 2}}  {'value':<{value_width}}  from"]
    for topic, section_rows in all_sections:
        lines += ["", topic]
        for row in section_rows:
            value = _value_text(row.value)
            source = row.source.rpartition("/")[2]
            lines.append(f"  {row.key:<{key_width}}  {value:<{value_width}}  {source}".rstrip())
    lines += [""] + [f"Note: {warning}." for warning in warnings]
    return "\n".join(lines).rstrip() + "\n"


def _value_text(value: Any) -> str:
    if value is NOT_SET:
        return "(needed, not set)"
    return value if isinstance(value, str) else json.dumps(value, default=list)


def help_text(config_class: Any, *, program: str | None = None) -> str:
    """Format all flags of a config class by topic, with type, default and meaning."""
    # Usage and summary.
    lines = [
        f"usage: {program or f'python {config_class.SCRIPT}'} --config FILE --output_dir DIR"
        " [--key value ...]",
        "",
        (inspect.getdoc(config_class) or "").splitlines()[0],
        "",
        *textwrap.wrap(
            "Every key of the JSON file is a flag, and a flag beats the file. Lists are written as"
            " --betas 0.9 0.98, parts of datasets as --train_datasets.0.img DIR. Flags are not"
            " abbreviated.",
            _LINE_WIDTH,
        ),
    ]
    # Flags by topic, those of the loader first.
    topics: dict[str, list[str]] = {
        "General": [
            *_entry("--config FILE", "JSON file with the experiment, as those in config_release/"),
            *_entry("--print_config", "show the resolved config and where each value is from"),
            *_entry("--help", "show this text"),
        ]
    }
    for option in fields_of(config_class).values():
        flag = f"--{option.name} {_placeholder(option.type)}"
        if option.entry_class is not None:
            flag = f"--{option.name}.I.{{{','.join(fields_of(option.entry_class))}}} TEXT"
        topics.setdefault(option.topic, []).extend(_entry(flag, _meaning(option)))
    for topic, entries in topics.items():
        lines += ["", f"{topic}:", *entries]
    # Keys of the original's configs that have no effect.
    if ignored := sorted(config_class.INERT):
        lines += ["", "Accepted without effect, as in the original:"]
        lines += textwrap.wrap(
            ", ".join(ignored), _LINE_WIDTH, initial_indent="  ", subsequent_indent="  "
        )
    return "\n".join(lines) + "\n"


def _entry(flag: str, meaning: str) -> list[str]:
    indent = " " * _FLAG_WIDTH
    width = _LINE_WIDTH - _FLAG_WIDTH
    text = textwrap.wrap(meaning, width, break_on_hyphens=False, break_long_words=False)
    head = f"  {flag}"
    if len(head) > _FLAG_WIDTH - 2:
        return [head, *(indent + line for line in text)]
    return [head.ljust(_FLAG_WIDTH) + text[0], *(indent + line for line in text[1:])]


def _placeholder(expected: Any) -> str:
    arguments = [part for part in typing.get_args(expected) if part is not type(None)]
    origin = typing.get_origin(expected)
    if origin is tuple:
        return " ".join(_placeholder(part) for part in arguments)
    if origin is list:
        return f"{_placeholder(arguments[0])} ..."
    if origin in (typing.Union, types.UnionType):
        return _placeholder(arguments[0])
    return {bool: "0|1", int: "N", float: "X"}.get(expected, "TEXT")


def _meaning(option: Option) -> str:
    # Choices, and when the value is needed or else its default, in brackets after the help.
    rule = option.rule
    parts = []
    if 0 < len(rule.choices) <= _MOST_CHOICES:
        parts.append(" | ".join(rule.choices))
    if rule.needed == "always":
        parts.append("needed")
    elif rule.needed != "never":
        parts.append(f"needed for {rule.needed}")
    elif option.default not in (None, []):
        parts.append(f"default {_default_text(option.default)}")
    return f"{rule.help} [{'; '.join(parts)}]" if parts else rule.help


def _default_text(default: Any) -> str:
    if isinstance(default, tuple):
        return " ".join(map(str, default))
    return str(int(default) if isinstance(default, bool) else default)
