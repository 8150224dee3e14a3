"""The page's addresses: its own files, the images that it named, and what its buttons ask for, as JSON.

No answer lets a browser ask another host: the header Content-Security-Policy allows this one alone.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from turkish_clip.app.jobs import Job
from turkish_clip.app.photos import MAX_UPLOAD, played_type, preview, shown_type, viewable
from turkish_clip.app.wording import BROKEN, RefusedError
from turkish_clip.errors import InputError, not_imported
from turkish_clip.images import ImageError
from turkish_clip.serving import AppError
from turkish_clip.strict_json import json_text

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from turkish_clip.app.drawing import DrawnBy
    from turkish_clip.app.page import Page
    from turkish_clip.dual_encoder import DualEncoder
    from turkish_clip.search.index import ImageIndex

log = logging.getLogger("turkish_clip")
STATIC = Path(__file__).parent / "static"
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/dom.js": ("dom.js", "text/javascript; charset=utf-8"),
    "/grid.js": ("grid.js", "text/javascript; charset=utf-8"),
    "/sections.js": ("sections.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
MAX_JSON = 100_000  # bytes of a request
ASKING, OPENING = 2, 2  # requests that use the models, and that open images, at a time; the others wait
MOST_WAITING = 200
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self'; connect-src 'self'; manifest-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
KEEP = {"Cache-Control": "private, max-age=86400, immutable"}  # the name of an image changes with its file
FRESH = {"Cache-Control": "no-store"}
UNEXPECTED = "Beklenmeyen bir aksaklık oldu. Ayrıntısı komutun çıktısında."
BUSY = "Şu anda çok fazla istek var. Birazdan yeniden deneyin."


def build_page(
    encoder: DualEncoder,
    index: ImageIndex | None,
    root: Path | None = None,
    *,
    can_index: bool = True,
    drawn_by: DrawnBy | None = None,
) -> Any:
    """Builds the page as an ASGI application.

    Args:
        encoder: from `load_dual_encoder`.
        index: the index that is searched; None leaves out what needs one.
        root: the folder from which on folders can be indexed on the page; None indexes none.
        can_index: whether the page's readers may index them.
        drawn_by: what images are drawn by from words; None: a canvas in Fourier space.

    Raises:
        AppError: Starlette is not installed, or can not be imported.
    """
    try:
        from starlette.applications import Starlette
        from starlette.routing import Route
    except ImportError as error:
        raise AppError(not_imported(error, "Starlette", "app", "starlette")) from error
    from turkish_clip.app.page import Page

    page = Page(encoder, index, root, can_index=can_index, drawn_by=drawn_by)
    asks = _Asks(page)
    routes = [Route(path, _static(*file)) for path, file in FILES.items()]
    for name in ("thumbnail", "view", "video", "original", "preview"):
        routes.append(Route(f"/{name}/{{name}}", getattr(asks, name)))
    routes.append(Route("/drawn/{name}", asks.drawn))
    routes.append(Route("/upload", asks.upload, methods=["POST"]))
    for name, answer in asks.answers.items():
        routes.append(Route(f"/ask/{name}", partial(asks.ask, answer), methods=["POST"]))
    return Starlette(routes=routes, exception_handlers={404: _not_found, 405: _not_found})


def _static(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    from starlette.responses import Response

    body = (STATIC / name).read_bytes()

    async def answer(request: Request) -> Response:
        return Response(body, media_type=kind, headers={**HEADERS, "Cache-Control": "no-cache"})

    return answer


async def _not_found(request: Request, error: Exception) -> Response:
    return _refusal("Burada bir şey yok.", 404)


def _json(value: Any, status: int = 200) -> Response:
    from starlette.responses import Response

    body = json_text(value).encode()
    return Response(body, status, {**HEADERS, **FRESH}, "application/json")


def _refusal(message: str, status: int = 400) -> Response:
    return _json({"message": message}, status)


class _Asks:
    """Answers the requests of a page; what takes long runs in threads, a few at a time.

    Args:
        page: what it does.
    """

    def __init__(self, page: Page) -> None:
        import anyio

        self._page = page
        self._asking, self._opening = anyio.CapacityLimiter(ASKING), anyio.CapacityLimiter(OPENING)
        self._waiting = 0
        self.answers: dict[str, Callable[..., Any]] = {
            "state": page.state,
            "newest": page.newest,
            "search": page.search,
            "details": page.details,
            "where": page.where,
            "classify": page.classify,
            "compare": page.compare,
            "filter": page.filter,
            "find-duplicates": lambda exact=False: page.find_duplicates(exact).as_json(),
            "duplicates": page.duplicates,
            "folders": page.folders,
            "add-folder": lambda below="": page.add_folder(below).as_json(),
            "draw": lambda words="", without="", seed=0: page.draw(words, without, seed).as_json(),
            "job": lambda kind="": _of_job(page.jobs.last(str(kind))),
            "stop": self._stop,
            "about": page.about,
        }

    def _stop(self, kind: Any = "") -> Any:
        job = self._page.jobs.last(str(kind))
        if job is not None:
            job.stopping = True
        return _of_job(job)

    async def ask(self, answer: Callable[..., Any], request: Request) -> Response:
        """Answers with what a method of the page returns for the keys of a JSON object."""
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return _refusal("İstek anlaşılmadı.", 415)  # what other sites can send without asking is of other types
        body = await _body(request, MAX_JSON)
        try:
            given = json.loads(body) if body is not None else None
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            return _refusal("İstek anlaşılmadı.", 400 if body is not None else 413)
        try:
            inspect.signature(answer).bind(**given)
        except TypeError:  # a key that there is not
            return _refusal("İstek anlaşılmadı.")
        return await self._answered(partial(self._of_index, partial(answer, **given)), self._asking)

    def _of_index(self, answer: Callable[[], Any]) -> Any:
        """Returns an answer; where the index was made anew since the page was opened, that of the new one."""
        from turkish_clip.search.storage import ImageIndexError

        try:
            return answer()
        except InputError as error:
            unread = any(isinstance(one, ImageIndexError) for one in (error, error.__cause__))
            if not unread or not self._page.reopen():
                raise
        return answer()

    async def _answered(self, answer: Callable[[], Any], limiter: Any) -> Response:
        from turkish_clip.search.storage import ImageIndexError

        try:
            return _json(await self._in_thread(answer, limiter))
        except RefusedError as error:
            return _refusal(str(error))
        except _BusyError:
            return _refusal(BUSY, 503)
        except InputError as error:
            log.warning("%s", error)
            return _refusal(BROKEN if isinstance(error, ImageIndexError) else UNEXPECTED, 500)
        except Exception:  # it may hold a path
            log.exception("request")
            return _refusal(UNEXPECTED, 500)

    async def _in_thread(self, work: Callable[[], Any], limiter: Any) -> Any:
        import anyio.to_thread

        if self._waiting >= MOST_WAITING:
            raise _BusyError
        self._waiting += 1
        try:
            return await anyio.to_thread.run_sync(work, limiter=limiter)
        finally:
            self._waiting -= 1

    async def upload(self, request: Request) -> Response:
        """Keeps an image of the reader in memory, and answers with its name."""
        if request.headers.get("content-type") != "application/octet-stream":
            return _refusal("İstek anlaşılmadı.", 415)
        data = await _body(request, MAX_UPLOAD)
        if data is None:
            return _refusal(f"Dosya çok büyük: en çok {MAX_UPLOAD // 1_000_000} MB olabilir.", 413)
        from turkish_clip.app.page import opened

        def keep() -> dict[str, str]:
            opened(data)
            return {"id": self._page.photos.keep_upload(data)}

        return await self._answered(keep, self._opening)

    async def thumbnail(self, request: Request) -> Response:
        """Answers with the thumbnail of an image that was shown."""
        name, photos = request.path_params["name"], self._page.photos
        path = photos.path(name)
        return await self._image(path, lambda: photos.thumbnail(name, path) if path else b"")

    async def view(self, request: Request) -> Response:
        """Answers with the image itself, or a JPEG copy of one that browsers do not show."""
        name, photos = request.path_params["name"], self._page.photos
        path, second = photos.path(name), photos.second(name)
        if path is not None and (kind := shown_type(path)) is not None:
            from starlette.responses import FileResponse

            return FileResponse(path, headers={**HEADERS, **KEEP}, media_type=kind)
        return await self._image(path, lambda: viewable(path, second) if path else b"")

    async def drawn(self, request: Request) -> Response:
        """Answers with an image that was drawn, as PNG."""
        from starlette.responses import Response

        data = self._page.photos.drawing(request.path_params["name"])
        if data is None:
            return _refusal("Bu resim artık yok. Yeniden çizin.", 404)
        return Response(data, 200, {**HEADERS, **KEEP}, "image/png")

    async def video(self, request: Request) -> Response:
        """Answers with a video that browsers may play, or with the part of it that they ask for."""
        path = self._page.photos.path(request.path_params["name"])
        kind = played_type(path) if path is not None else None
        if path is None or kind is None:
            return _refusal("Bu video artık yerinde değil.", 404)
        from starlette.responses import FileResponse

        return FileResponse(path, headers={**HEADERS, **KEEP}, media_type=kind)

    async def preview(self, request: Request) -> Response:
        """Answers with a small JPEG copy of an upload."""
        data = self._page.photos.upload(request.path_params["name"])
        return await self._image(data, lambda: preview(data) if data else b"")

    async def original(self, request: Request) -> Response:
        """Answers with the file itself, to be saved."""
        path = self._page.photos.path(request.path_params["name"])
        if path is None:
            return _refusal("Bu resim artık yerinde değil.", 404)
        from starlette.responses import FileResponse

        name = quote(path.name.encode("utf-8", "replace"))
        disposition = {"Content-Disposition": f"attachment; filename*=utf-8''{name}"}
        return FileResponse(path, headers={**HEADERS, **KEEP, **disposition}, media_type="application/octet-stream")

    async def _image(self, path: Path | bytes | None, data: Callable[[], bytes]) -> Response:
        from starlette.responses import Response

        if path is None:
            return _refusal("Bu resim artık yerinde değil.", 404)
        try:
            return Response(await self._in_thread(data, self._opening), 200, {**HEADERS, **KEEP}, "image/jpeg")
        except ImageError:
            return _refusal("Bu resim açılamadı.", 404)
        except _BusyError:
            return _refusal(BUSY, 503)


class _BusyError(Exception):
    """Too many requests wait."""


def _of_job(job: Job | None) -> dict[str, Any]:
    return job.as_json() if job is not None else {}


async def _body(request: Request, most: int) -> bytes | None:
    """Returns the body of a request; None if it is longer than allowed."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            return None
        parts.append(part)
    return b"".join(parts)
