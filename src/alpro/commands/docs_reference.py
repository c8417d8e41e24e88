"""Reference pages of the documentation: ``alpro docs-reference --output docs/reference``.

Writes ``config.md``, all keys by topic, from the config classes, and ``commands.md`` and
``model-commands.md`` from the help of every command.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from alpro.commands.cli import exit_code_of, path_flag
from alpro.commands.registry import GROUPS, Command
from alpro.configs.family import with_family
from alpro.configs.fields import Option, fields_of
from alpro.families.registry import FAMILIES, family_config
from alpro.tasks.registry import TASKS

MAX_CHOICES = 12  # a longer list of choices is left to the field's help text
HELP_WIDTH = 96  # of help texts, in characters
NEEDED = {"always": "required", "training": "required to train", "inference": "required to infer"}
GENERATED = "<!-- Written by `alpro docs-reference`; do not edit. -->\n"
CONFIG_INTRODUCTION = """
# Config keys

Every key of a JSON config is also a flag (`--learning_rate 1e-5`), and a flag overrides the file.
Keys of a model's own JSON files are not: edit a copy of the file.
*Required* means that there is no default. Keys marked ° describe how or where a run executes: they
may change when a run is resumed, and inference does not take them from the stored run. `1`/`true`
and `0`/`false` are the same. Names and defaults are those of the original code where it has the
key, unless the text says otherwise.
"""
COMMANDS_INTRODUCTION = """
# Commands

`alpro COMMAND` and `python -m alpro COMMAND` are the same. `alpro --help` lists all commands.
[Those that use a model, and those that measure](model-commands.md), have a page of their own.
"""
FURTHER_INTRODUCTION = """
# Commands for models and measurements

The [other commands](commands.md) prepare data, train, and show results.
"""
NUM_FIRST_GROUPS = 3  # of the commands, on the first page
_SUBCOMMAND = re.compile(r"^ {4}(\w+)(?: |$)", re.MULTILINE)
_ENTRY = re.compile(r"^  (?=[-{])", re.MULTILINE)  # of a flag or a positional argument
_CHOICES = re.compile(r"\{([\w,]+)\}")
_MARKUP = re.compile(r"\*|(?<!\w)_|_(?!\w)")  # of emphasis, which names of files have too
_TABLE_HEAD = "| key | default | meaning |\n|---|---|---|\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="alpro docs-reference",
        description="Write the reference pages of configs and commands.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--output",
        type=path_flag,
        default=Path("docs/reference"),
        help="folder of the pages (default: docs/reference)",
    )
    output = parser.parse_args(arguments).output
    return exit_code_of(lambda: _write(output))


def _write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """File name of each reference page -> its text."""
    groups = list(GROUPS.items())
    return {
        "config.md": config_page(),
        "commands.md": commands_page(groups[:NUM_FIRST_GROUPS], COMMANDS_INTRODUCTION),
        "model-commands.md": commands_page(groups[NUM_FIRST_GROUPS:], FURTHER_INTRODUCTION),
    }


def config_page() -> str:
    """All config keys: those of every family by topic, then what each family adds."""
    tasks = list(TASKS.values())
    keys = _tables({task.TOPIC: fields_of(task) for task in tasks})
    parts = [GENERATED + CONFIG_INTRODUCTION.rstrip(), *keys]
    for family in FAMILIES:
        own = {task.TOPIC: _family_fields(task, family) for task in tasks}
        files = family_config(family).architecture.values()
        tables = [*_tables(own), *_tables({one.TOPIC: fields_of(one) for one in files})]
        parts += [f"## Family {family}", *(f"#{table}" for table in tables)]
    return "\n\n".join([*parts, *_inert_keys(tasks)]) + "\n"


def _family_fields(task: Any, family: str) -> dict[str, Option]:
    """Keys that a family adds to a task's config, and those that it gives another default."""
    framework = fields_of(task)
    fields = fields_of(with_family(task, family))
    return {
        name: option
        for name, option in fields.items()
        if name != "family" and option != framework.get(name)
    }


def _tables(options: Mapping[str, Mapping[str, Option]]) -> list[str]:
    """One Markdown table per topic of ``--help``; `options` has them by class and name."""
    by_topic: dict[str, dict[str, dict[str, Option]]] = {}  # topic, key, class -> its option
    classes_of: dict[str, set[str]] = {}
    for config, of_class in options.items():
        for name, option in of_class.items():
            by_topic.setdefault(option.topic, {}).setdefault(name, {})[config] = option
            classes_of.setdefault(option.topic, set()).add(config)
    return [
        f"## {topic}\n\n{_TABLE_HEAD}"
        + "\n".join(
            _row(variant, everyone=len(variant) == len(classes_of[topic]))
            for of_key in keys.values()
            for variant in _variants(of_key)
        )
        for topic, keys in by_topic.items()
    ]


def _variants(options: Mapping[str, Option]) -> list[dict[str, Option]]:
    """One key by class, separated where classes mean different things by it."""
    variants: list[dict[str, Option]] = []
    for config, option in options.items():
        alike = [one for one in variants if next(iter(one.values())).rule == option.rule]
        if alike:
            alike[0][config] = option
        else:
            variants.append({config: option})
    return variants


def _row(options: Mapping[str, Option], *, everyone: bool) -> str:
    """One key; `options` has it by class, since classes may have defaults of their own."""
    option = next(iter(options.values()))
    key = f"`{option.name}`" + (" °" if option.rule.per_run else "")
    meaning = _escape(option.rule.help)
    if 1 < len(option.rule.choices) <= MAX_CHOICES:
        meaning += ": " + ", ".join(f"`{choice}`" for choice in option.rule.choices)
    if not everyone:
        meaning = f"*{', '.join(options).capitalize()}:* {meaning}"
    by_default: dict[str, list[str]] = {}
    for config, of_class in options.items():
        by_default.setdefault(_default(of_class), []).append(config.lower())
    shown = ", ".join(f"{text} ({', '.join(names)})" for text, names in by_default.items())
    if len(by_default) == 1:
        shown = _default(option)
    return f"| {key} | {shown} | {meaning} |"


def _escape(text: str) -> str:
    """Escape the characters of a plain text that Markdown takes for markup."""
    return _MARKUP.sub(r"\\\g<0>", text).replace("<", "&lt;")


def _default(option: Option) -> str:
    if option.rule.needed in NEEDED:
        return NEEDED[option.rule.needed]
    if isinstance(option.default, bool):
        return f"`{int(option.default)}`"
    return f"`{json.dumps(option.default).strip(chr(34))}`"


def _inert_keys(tasks: Iterable[Any]) -> Iterator[str]:
    """The section on keys that are accepted and have no effect."""
    common = frozenset.intersection(*(task.INERT for task in tasks))
    yield "## Keys without effect"
    yield (
        "Keys that the original accepts and never reads are accepted with a warning. Any other "
        "unknown key is an error."
    )
    rows = [("all", common), *((task.TOPIC.lower(), task.INERT - common) for task in tasks)]
    yield "| task | keys |\n|---|---|\n" + "\n".join(
        f"| {name} | {', '.join(f'`{key}`' for key in sorted(keys))} |" for name, keys in rows
    )


def commands_page(groups: Iterable[tuple[str, dict[str, Command]]], introduction: str) -> str:
    """The help of commands, in the groups of ``alpro --help``."""
    parts = [GENERATED + introduction.rstrip()]
    for title, group in groups:
        parts.append(f"## {title}")
        for name, command in group.items():
            parts += _command_parts(name, command)
    return "\n\n".join(parts) + "\n"


def _command_parts(name: str, command: Command) -> Iterator[str]:
    """Heading, summary and flags of a command and of its own subcommands."""
    yield f"### alpro {name}"
    if command.module == "train":
        summary = command.summary[0].upper() + command.summary[1:]
        yield f"{summary}. Flags: `--config FILE` and [config keys](config.md)."
        return
    text = _help_of(command, [])
    yield from _help_parts(text)
    positional, _, _ = text.partition("options:")
    for subcommand in _SUBCOMMAND.findall(positional.partition("positional arguments:")[2]):
        yield f"#### alpro {name} {subcommand}"
        yield from _help_parts(_help_of(command, [subcommand]))


def _help_of(command: Command, words: Sequence[str]) -> str:
    function = getattr(import_module(f"alpro.commands.{command.module}"), command.function)
    width = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(HELP_WIDTH)  # the width that argparse wraps at
    try:
        with redirect_stdout(io.StringIO()) as shown, suppress(SystemExit):
            function([*words, "--help"])
    finally:
        os.environ.pop("COLUMNS")
        if width is not None:
            os.environ["COLUMNS"] = width
    return shown.getvalue()


def _help_parts(text: str) -> Iterator[str]:
    """Description, epilog and table of flags of a help text, whatever Python has wrapped it."""
    usage, *paragraphs = text.strip().split("\n\n")
    rows = []
    for paragraph in paragraphs:
        if paragraph.startswith(("positional arguments:", "options:")):
            rows += [_flag_row(entry, usage) for entry in _ENTRY.split(paragraph)[1:]]
        else:
            yield " ".join(paragraph.split())
    rows = [row for row in rows if row]
    if rows:
        yield "| flag | meaning |\n|---|---|\n" + "\n".join(rows)


def _flag_row(entry: str, usage: str) -> str:
    """The row of one flag; empty for ``--help``."""
    head, _, rest = entry.partition("\n")
    invocation, *helps = re.split(r" {2,}", head, maxsplit=1)
    meaning = _escape(" ".join([*helps, *rest.split()])).replace(" (default: None)", "")
    flags = re.findall(r"--\w+", invocation)
    if "--help" in flags:
        return ""
    if choices := _CHOICES.search(invocation):
        meaning = f"{meaning}: {', '.join(f'`{one}`' for one in choices[1].split(','))}"
    before = re.split(rf"{flags[0]}\b", usage, maxsplit=1)[0] if flags else "["
    if before.count("[") == before.count("]"):
        is_choice = before.count("(") > before.count(")")
        meaning = f"{'*one of these*' if is_choice else '*required*'}: {meaning}"
    shown = ", ".join(f"`{flag}`" for flag in flags) or f"`{invocation}`"
    return f"| {shown} | {meaning.removeprefix(': ')} |"
