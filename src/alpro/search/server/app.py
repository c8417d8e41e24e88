"""Server of an index: a page, a JSON API, and the media of the indexed files.

Files are named by their ids alone, and none but indexed ones are served.
"""

from __future__ import annotations

import hmac
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import alpro
from alpro.datasets.decoding.base import VideoReadError
from alpro.datasets.decoding.image_files import IMAGE_EXTENSIONS
from alpro.datasets.storage.directory_index import VIDEO_EXTENSIONS
from alpro.errors import InputError, printable
from alpro.isolation.process import CallCutOffError
from alpro.search.answers import answer_of, identity_of
from alpro.search.collection import state_of
from alpro.search.index import IndexedFile
from alpro.search.searcher import Example, Query, Searcher
from alpro.search.server.media import Media
from alpro.search.server.parameters import query_of, span_of

MAX_UPLOAD_BYTES = 64 << 20
COOKIE = "token"
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_CACHED = {"Cache-Control": "private, max-age=3600"}
_MAX_DIGITS = 18  # of ids, which are 64-bit integers
_CUT_OFF = "making it took too long, or too much memory"


@dataclass(frozen=True)
class SearchServer:
    """Handlers of the requests."""

    searcher: Searcher
    media: Media
    answering: alpro.Model | None
    """Model that answers questions, if there is one."""
    identity: str
    """Of the index."""

    @property
    def captioning(self) -> alpro.Model | None:
        """Model that describes videos, if one of both does."""
        models = (self.searcher.model, self.answering)
        return next((one for one in models if one is not None and one.can_caption), None)

    async def page(self, _request: Request) -> Response:
        """Return the page."""
        html = _TEMPLATES.get_template("page.html").render(
            can_ask=self.answering is not None,
            can_caption=self.captioning is not None,
            can_match=self.searcher.model.can_match,
            videos=",".join(VIDEO_EXTENSIONS),
            images=",".join(IMAGE_EXTENSIONS),
        )
        return Response(html, media_type="text/html")

    async def status(self, _request: Request) -> Response:
        """Return what is indexed: folders, counts, and files that cannot be read."""
        return JSONResponse(await run_in_threadpool(self._status))

    async def search(self, request: Request) -> Response:
        """Search by the parameters, and by the file in the body of a POST."""
        if request.query_params.get("index", self.identity) != self.identity:
            raise HTTPException(421, "this is the server of another index")
        query = self._query_of(request)
        if request.method == "GET":
            return JSONResponse(await run_in_threadpool(self._search, query))
        suffix = Path(request.query_params.get("name", "")).suffix.lower()
        if suffix not in (*VIDEO_EXTENSIONS, *IMAGE_EXTENSIONS):
            raise HTTPException(415, "neither a video nor a picture, by its name")
        with tempfile.NamedTemporaryFile(suffix=suffix) as file:
            size = 0
            async for piece in request.stream():
                size += len(piece)
                if size > MAX_UPLOAD_BYTES:
                    raise HTTPException(413, f"larger than {MAX_UPLOAD_BYTES >> 20} MB")
                file.write(piece)
            file.flush()
            given = replace(query, examples=(*query.examples, Example(Path(file.name))))
            try:
                return JSONResponse(await run_in_threadpool(self._search, given))
            except InputError as error:
                name = printable(request.query_params["name"])
                raise InputError(str(error).replace(file.name, name)) from error

    async def file(self, request: Request) -> Response:
        """Return an indexed file, or the range of bytes that is asked for."""
        path = self._file_of(request.path_params["number"]).path
        return FileResponse(path, content_disposition_type="inline")

    async def about(self, request: Request) -> Response:
        """Return name and length of an indexed file."""
        file = self._file_of(request.path_params["number"])
        return JSONResponse({"name": _name_of(file, self._top()), "duration": file.duration})

    async def strip(self, request: Request) -> Response:
        """Return frames of a moment as one JPEG."""
        file, start, end = self._part_of(request)
        jpeg = await run_in_threadpool(self.media.strip, file, start, end)
        return Response(jpeg, media_type="image/jpeg", headers=_CACHED)

    async def preview(self, request: Request) -> Response:
        """Return a moment as a clip that every browser plays."""
        file, start, end = self._part_of(request)
        path = await run_in_threadpool(self.media.preview, file, start, end)
        name = f"{printable(file.path.stem)}_{start:g}-{end:g}.mp4"
        how = "attachment" if "download" in request.query_params else "inline"
        return FileResponse(path, filename=name, content_disposition_type=how, headers=_CACHED)

    async def caption(self, request: Request) -> Response:
        """Describe a moment."""
        if not self.captioning:
            raise HTTPException(404, "no model that describes videos")
        file, start, end = self._part_of(request)
        text = await run_in_threadpool(self.captioning.caption, file.path, start=start, end=end)
        return JSONResponse({"caption": text})

    async def ask(self, request: Request) -> Response:
        """Answer a question about a moment."""
        if self.answering is None:
            raise HTTPException(404, "no model that answers: start with --answers MODEL")
        file, start, end = self._part_of(request)
        question = request.query_params.get("q", "").strip()
        if not question:
            raise HTTPException(400, "no question")
        answers = await run_in_threadpool(
            self.answering.answer, question, file.path, start=start, end=end
        )
        return JSONResponse({"answers": [{"text": a, "probability": p} for a, p in answers]})

    def _status(self) -> dict[str, Any]:
        index = self.searcher.index
        files, settings = index.files(), index.settings
        readable = [one for one in files if one.reason is None]
        top = self._top()
        folders = {os.path.dirname(_name_of(one, top)) for one in readable}
        return {
            "num_windows": len(index.windows().row),
            "num_files": len(readable),
            "seconds": sum(one.duration for one in readable),
            "window": settings.window,
            "stride": settings.stride,
            "folders": sorted(folder for folder in folders if folder),
            "unreadable": [
                {"name": _name_of(one, top), "reason": one.reason} for one in files if one.reason
            ],
        }

    def _search(self, query: Query) -> dict[str, Any]:
        try:
            result = self.searcher.search(query)
        except InputError as error:  # of an indexed file: name it as elsewhere
            folder = printable(os.path.join(self._top(), ""))
            raise InputError(printable(str(error)).removeprefix(folder)) from error
        answer, top = answer_of(result), self._top()
        for moment, value in zip(result.moments, answer["moments"], strict=True):
            value["name"] = _name_of(moment.file, top)
        return answer

    def _query_of(self, request: Request) -> Query:
        return query_of(request.query_params, top=self._top(), file_of=self._file_of)

    def _top(self) -> Path:
        """Longest folder that all files are in."""
        files = self.searcher.index.files()
        return Path(os.path.commonpath([one.path.parent for one in files]) if files else "/")

    def _part_of(self, request: Request) -> tuple[IndexedFile, float, float]:
        file = self._file_of(request.path_params["number"])
        return file, *span_of(request.query_params, file)

    def _file_of(self, number: str) -> IndexedFile:
        is_id = number.isdecimal() and len(number) <= _MAX_DIGITS
        file = self.searcher.index.file(int(number)) if is_id else None
        if file is None:
            raise HTTPException(404, "no such file in the index")
        try:
            if state_of(file.path) == file.state:
                return file
            problem = "has changed since it was indexed"
        except OSError:
            problem = "is not there any more"
        raise HTTPException(409, f"the file {problem}: index again")


def create_app(
    searcher: Searcher,
    *,
    answering: alpro.Model | None = None,
    token: str | None = None,
    hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]"),
) -> Starlette:
    """Make the application.

    Args:
        searcher: of the index that is served.
        answering: model that answers questions about moments.
        token: secret that requests must know; None: none is needed.
        hosts: names that the server may be called by, so that no other page can reach it through a
            name of its own (DNS rebinding).
    """

    async def guard(request: Request, call_next: RequestResponseEndpoint) -> Response:
        if token is not None and not _knows(request, token):
            response = _problem(401, "a token is needed: open the address that the server printed")
        elif token is not None and COOKIE in request.query_params and request.url.path == "/":
            response = RedirectResponse("/")
            response.set_cookie(COOKIE, token, httponly=True, samesite="strict")
        else:
            response = await call_next(request)
        response.headers.update(_HEADERS)
        return response

    media = Media(searcher.index.folder)
    server = SearchServer(searcher, media, answering, identity_of(searcher.index.folder))
    app = Starlette(
        routes=[
            Route("/", server.page),
            Route("/api/status", server.status),
            Route("/api/search", server.search, methods=["GET", "POST"]),
            Route("/api/ask/{number}", server.ask),
            Route("/api/caption/{number}", server.caption),
            Route("/api/file/{number}", server.about),
            Route("/media/{number}", server.file),
            Route("/strip/{number}", server.strip),
            Route("/preview/{number}", server.preview),
            Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts)),
            Middleware(BaseHTTPMiddleware, dispatch=guard),
        ],
        exception_handlers={
            HTTPException: lambda _, error: _problem(error.status_code, error.detail),
            InputError: lambda _, error: _problem(400, str(error)),
            VideoReadError: lambda _, error: _problem(422, str(error)),
            CallCutOffError: lambda *_: _problem(422, _CUT_OFF),
        },
    )
    app.state.media = media
    return app


def _knows(request: Request, token: str) -> bool:
    given = (
        request.headers.get("authorization", "").removeprefix("Bearer "),
        request.cookies.get(COOKIE, ""),
        request.query_params.get(COOKIE, ""),
    )
    return any(hmac.compare_digest(one.encode(), token.encode()) for one in given)


def _problem(code: int, message: str) -> Response:
    return JSONResponse({"error": message}, code)


def _name_of(file: IndexedFile, top: Path) -> str:
    return printable(str(file.path.relative_to(top)))


_TEMPLATES = Environment(loader=PackageLoader("alpro.search.server"), autoescape=True)
