"""Running of the server."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

import alpro
from alpro.errors import InputError
from alpro.search.answers import SERVER, announce, announced
from alpro.search.searcher import Searcher
from alpro.search.server.app import COOKIE, create_app

ANY = ("0.0.0.0", "::")  # noqa: S104  # addresses that stand for all of a machine


def run_server(
    searcher: Searcher,
    *,
    answering: alpro.Model | None,
    host: str,
    port: int,
    token: str | None,
    ready: Callable[[str], object],
) -> None:
    """Serve until interrupted; other commands find the server by a file in the index's folder.

    Args:
        searcher: of the index.
        answering: model that answers questions about moments.
        host: address to listen on.
        port: 0 for any free one.
        token: secret that requests must know; None: none is needed.
        ready: called with the page's address, just before it can be opened.

    Raises:
        InputError: the index has another model, or the port cannot be had.
    """
    _ = searcher.model  # refuses another one before anybody waits
    listening = _listening(host, port)
    port, folder = listening.getsockname()[1], searcher.index.folder
    shown = f"[{host}]" if ":" in host else host
    hosts = ("*",) if host in ANY else ("localhost", "127.0.0.1", "[::1]", shown)
    app = create_app(searcher, answering=answering, token=token, hosts=hosts)
    url = f"http://{'127.0.0.1' if host in ANY else shown}:{port}"
    announce(folder, url=url, token=token)
    ready(f"{url}/?{COOKIE}={token}" if token else url)
    config = uvicorn.Config(app, log_level="warning", server_header=False)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        if announced(folder) == (url, token):  # else another server has come
            (folder / SERVER).unlink(missing_ok=True)
        app.state.media.close()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        problem = error.strerror or error
        raise InputError(f"--host {host} --port {port}: {problem}. Choose another.") from error
    return listening
