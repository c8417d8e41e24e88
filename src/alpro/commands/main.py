"""The command ``alpro``: help and dispatch to subcommands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from alpro import __version__
from alpro.commands.cli import run_command
from alpro.commands.registry import COMMANDS, GROUPS
from alpro.errors import USER_ERROR_EXIT_CODE, InputError

_NAME_WIDTH = max(map(len, COMMANDS))


def run() -> None:
    """Run ``alpro`` as a program."""
    run_command(main)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["--version"]:
        print(f"alpro {__version__}")
        return 0
    if not words or words[0] in ("-h", "--help"):
        print(help_text())
        return 0
    # Module names with underscores are accepted, too.
    name = words[0].replace("_", "-")
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, n=1)
        hint = f"Did you mean {close[0]}? " if close else ""
        print(f"error: no command {words[0]!r}. {hint}alpro --help lists all.", file=sys.stderr)
        return USER_ERROR_EXIT_CODE
    # Only the module of this command is imported.
    command = COMMANDS[name]
    try:
        function = getattr(import_module(f"alpro.commands.{command.module}"), command.function)
        return int(function(words[1:]))
    except ModuleNotFoundError as error:
        if error.name != "PIL":
            raise
        raise InputError(
            f"alpro {name} needs Pillow, which is not installed: `pip install pillow`"
        ) from error


def help_text() -> str:
    """All commands, in their groups."""
    lines = ["usage: alpro COMMAND [flags]", "       alpro COMMAND --help", ""]
    for title, group in GROUPS.items():
        lines.append(f"{title}:")
        lines += [f"  {name:{_NAME_WIDTH}}  {command.summary}" for name, command in group.items()]
        lines.append("")
    return "\n".join([*lines, "alpro --version prints the version."])
