"""Shell completion: ``source <(alpro completion bash)`` in a shell's start-up file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from alpro.commands.registry import COMMANDS

_BASH = """\
_alpro() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} command=${{COMP_WORDS[1]}}
    if [ "$COMP_CWORD" = 1 ]; then
        COMPREPLY=($(compgen -W "{names} --help --version" -- "$word"))
    elif [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "$(alpro "$command" --help 2>/dev/null |
            grep -oE -- '--[A-Za-z_][A-Za-z_0-9.]*' | sort -u)" -- "$word"))
    fi
}}
complete -o default -F _alpro alpro
"""
_SHELLS = {
    "bash": _BASH,
    "zsh": "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"
    + _BASH,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="alpro completion", description=__doc__)
    parser.add_argument("shell", choices=_SHELLS)
    shell = parser.parse_args(arguments).shell
    print(_SHELLS[shell].format(names=" ".join(COMMANDS)), end="")
    return 0
