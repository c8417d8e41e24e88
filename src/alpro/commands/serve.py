"""Serve a page to search an index: ``alpro serve``, then open the address that it prints."""

from __future__ import annotations

import argparse
import ipaddress
import secrets
from collections.abc import Sequence
from pathlib import Path

from alpro.commands.cli import DefaultsShown, any_path_flag, at_most, exit_code_of
from alpro.commands.index import DEFAULT_INDEX
from alpro.errors import InputError
from alpro.installation import has_package

LARGEST_PORT = 65_535
PACKAGES = ("starlette", "uvicorn", "PIL")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    flags = _parser().parse_args(arguments)
    return exit_code_of(lambda: _serve(flags))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alpro serve",
        description="Serve a page, and a JSON API, to search an index.",
        formatter_class=DefaultsShown,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--index", type=any_path_flag, default=Path(DEFAULT_INDEX), help="folder of the index")
    add("--host", default="127.0.0.1", help="address to listen on; others than this need a token")
    add("--port", type=at_most(LARGEST_PORT), default=8080, help="port; 0: any free one")
    add("--token", help="secret that requests must know; `new` makes one up")
    add("--answers", type=any_path_flag, metavar="MODEL", help="model to ask about moments")
    add("--model", type=any_path_flag, help="folder of the index's model, if it has moved")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to encode")
    return parser


def _serve(flags: argparse.Namespace) -> None:
    missing = [name for name in PACKAGES if not has_package(name)]
    if missing:
        raise InputError(f"{', '.join(missing)}: not installed. `pip install 'alpro[serve]'`")
    if flags.token is None and not _is_own(flags.host):
        raise InputError(
            f"--host {flags.host}: others could look at the videos. Give a secret with --token, or "
            "--token new"
        )
    import alpro
    from alpro.search.index import Index
    from alpro.search.searcher import Searcher
    from alpro.search.server.running import run_server

    token = secrets.token_urlsafe(24) if flags.token == "new" else flags.token  # noqa: S105
    with Index(flags.index) as index:
        model = alpro.load(flags.model or index.settings.model, device=flags.device)
        answering = None
        if flags.answers is not None:
            answering = alpro.load(flags.answers, device=flags.device)
            if not answering.can_answer:
                raise InputError(f"--answers {flags.answers}: is no model that answers questions")
        run_server(
            Searcher(index, lambda: model),
            answering=answering,
            host=flags.host,
            port=flags.port,
            token=token,
            ready=lambda address: print(f"{address}  (Ctrl-C ends)", flush=True),
        )


def _is_own(host: str) -> bool:
    """Return whether an address is of this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
