"""The page's web server: JSON over HTTP on loopback. The only part of the page with sockets.

Everything that changes is asked for with the revision that the window shows; an older one is refused and
answered with the newest state, so that two windows cannot overwrite each other's work. Requests must name
this host, and come from this page: another web page open in the same browser cannot use it.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from aiohttp import web

from calib.errors import CalibError
from calib.look.walker import walker
from calib.page.asked import Asked
from calib.page.draft import Draft
from calib.page.edits import apply
from calib.page.facts import draft_facts, ground_hover_facts, hover_facts, plan_facts, walk_of, walker_facts
from calib.page.history import History
from calib.page.pictures import Shots
from calib.points import save_points
from calib.saving import save_checked

_log = logging.getLogger(__name__)
_LARGEST_REQUEST_BYTES = 256 * 1024
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# Nothing is ever loaded from elsewhere.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Files:
    """Where the page saves."""

    scene: Path
    points: Path


class Page:
    """One calibration being edited. Changes happen one after the other; pictures and hovers beside them."""

    def __init__(self, draft: Draft, shots: Shots, to: Files, new: bool) -> None:
        self._history = History(draft)
        if new:
            self._history.mark_unsaved()
        self._shots = shots
        self._to = to
        self._changing = asyncio.Lock()
        self._facts: tuple[object, dict[str, Any]] | None = None

    def routes(self) -> list[web.RouteDef]:
        """What the server answers."""
        return [
            web.get("/", self._file),
            web.get("/static/{name}", self._file),
            web.get("/api/state", self._state),
            web.get("/api/plan", self._plan),
            web.get("/api/hover", self._hover),
            web.get("/api/walker", self._walker),
            web.get("/api/picture/{view}", self._picture),
            web.post("/api/edit", self._edit),
            web.post("/api/undo", self._undo),
            web.post("/api/redo", self._redo),
            web.post("/api/save", self._save),
        ]

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name", "index.html")
        found = files("calib.page").joinpath("static", name)
        kind = _TYPES.get(Path(name).suffix)
        if kind is None or not found.is_file():
            raise web.HTTPNotFound(text=f"there is no {name}")
        return web.Response(body=found.read_bytes(), content_type=kind, charset="utf-8")

    def _now(self, **more: Any) -> dict[str, Any]:
        history, draft = self._history, self._history.draft
        # Undo, saving and a new window show what was computed already.
        key = (draft, tuple(self._shots.sizes.items()))
        if self._facts is None or self._facts[0] != key:
            self._facts = (key, draft_facts(draft, self._shots.sizes))
        pictures = {
            view: {"kind": p.kind, "where": p.where, "length_s": p.length_s}
            for view, p in self._shots.pictures.items()
        }
        return {
            **self._facts[1],
            "revision": history.revision,
            "saved": history.saved,
            "undo": history.undo_label,
            "redo": history.redo_label,
            "pictures": pictures,
            "files": {"scene": str(self._to.scene), "points": str(self._to.points)},
            **more,
        }

    async def _state(self, request: web.Request) -> web.Response:
        return web.json_response(await asyncio.to_thread(self._now))

    async def _plan(self, request: web.Request) -> web.Response:
        draft = self._history.draft
        if not draft.cameras:
            return web.json_response(None)
        return web.json_response(await asyncio.to_thread(plan_facts, draft))

    async def _hover(self, request: web.Request) -> web.Response:
        draft, view = self._history.draft, request.query.get("view")
        place = _floats(request, "x", "y")
        if view is None:
            return web.json_response(ground_hover_facts(draft, place))
        return web.json_response(hover_facts(draft, view, place))

    async def _walker(self, request: web.Request) -> web.Response:
        """Of a share of the round, or standing at x, y."""
        draft = self._history.draft
        if "share" in request.query:
            person = walk_of(draft).at(_floats(request, "share")[0])
        else:
            person = walker(_floats(request, "x", "y"), 0.6, 0.08)
        facts = walker_facts(draft, person)
        return web.json_response({**facts, "round_m": round(walk_of(draft).length_m, 2)})

    async def _picture(self, request: web.Request) -> web.Response:
        at_s = _floats(request, "at")[0] if "at" in request.query else 0.0
        data = await asyncio.to_thread(self._shots.jpeg, request.match_info["view"], at_s)
        return web.Response(body=data, content_type="image/jpeg")

    async def _edit(self, request: web.Request) -> web.Response:
        asked = await self._asked(request)
        async with self._changing:
            if (refused := self._outdated(asked)) is not None:
                return refused
            edited = await asyncio.to_thread(apply, self._history.draft, asked)
            self._history.add(edited.draft, edited.label)
            notes = [edited.label, *edited.notes] if edited.notes else []
            return web.json_response(await asyncio.to_thread(self._now, notes=notes, point=edited.point))

    async def _undo(self, request: web.Request) -> web.Response:
        return await self._step(request, self._history.undo, "there is nothing to undo")

    async def _redo(self, request: web.Request) -> web.Response:
        return await self._step(request, self._history.redo, "there is nothing to redo")

    async def _step(self, request: web.Request, go: Callable[[], bool], nothing: str) -> web.Response:
        asked = await self._asked(request)
        async with self._changing:
            if (refused := self._outdated(asked)) is not None:
                return refused
            if not go():
                raise CalibError(nothing)
            return web.json_response(await asyncio.to_thread(self._now))

    async def _save(self, request: web.Request) -> web.Response:
        asked = await self._asked(request)
        async with self._changing:
            if (refused := self._outdated(asked)) is not None:
                return refused
            draft, force = self._history.draft, Asked(asked).flag("force")
            try:
                await asyncio.to_thread(self._write, draft, force)
            except CalibError as error:
                # The page asks what the command line has an option for.
                said = str(error).replace("; save elsewhere, or use --force", "")
                can_force = not force and bool(draft.cameras)
                return web.json_response({"error": said, "can_force": can_force}, status=409)
            self._history.mark_saved(draft)
            _log.info("saved %s and %s", self._to.scene, self._to.points)
            return web.json_response(
                await asyncio.to_thread(self._now, notes=[f"saved {self._to.scene} and {self._to.points}"])
            )

    def _write(self, draft: Draft, force: bool) -> None:
        # Points first: they are work that must not be lost because a pose is not good yet.
        if draft.points or self._to.points.exists():
            save_points(draft.points, self._to.points)
        save_checked(draft.scene(), self._to.scene, draft.points, force)

    def _outdated(self, asked: dict[str, Any]) -> web.Response | None:
        if asked.get("revision") == self._history.revision:
            return None
        error = "it was changed in another window: this one now shows the newest; do it again"
        return web.json_response({"error": error, "state": self._now()}, status=409)

    async def _asked(self, request: web.Request) -> dict[str, Any]:
        try:
            asked = await request.json()
        except (json.JSONDecodeError, UnicodeDecodeError):
            asked = None
        if not isinstance(asked, dict):
            raise CalibError("the page sent something that is no request: reload the page")
        return asked


def _floats(request: web.Request, *keys: str) -> list[float]:
    given = {key: request.query.get(key) for key in keys}
    try:
        wanted = [float(value or "nan") for value in given.values()]
    except ValueError:
        wanted = [float("nan")]
    place: list[float] = Asked({"place": wanted}).numbers("place", len(keys)).tolist()
    return place


def _guard(host: str) -> Any:
    """Refuses requests that did not mean this server, and puts errors for people into JSON."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        name = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
        if host in ("127.0.0.1", "localhost", "::1") and name not in _LOOPBACK:
            raise web.HTTPForbidden(text="this page is for this computer only")
        origin = request.headers.get("Origin")
        if request.method == "POST" and (
            request.content_type != "application/json" or (origin or "").partition("://")[2] != request.host
        ):
            raise web.HTTPForbidden(text="this request did not come from the calibration page")
        try:
            response = await handler(request)
        except CalibError as error:
            response = web.json_response({"error": str(error)}, status=400)
        response.headers.update(_HEADERS)
        return response

    return guard


async def serve(
    draft: Draft,
    shots: Shots,
    to: Files,
    host: str,
    port: int,
    stopped: Callable[[], bool],
    ready: Callable[[str], None],
    new: bool = False,
) -> None:
    """Serve the page until `stopped` says so. port 0: any free one; `ready` is told the address. new: nothing
    of the draft is in a file yet. OSError where the address cannot be had.
    """
    page = Page(draft, shots, to, new)
    app = web.Application(middlewares=[_guard(host)], client_max_size=_LARGEST_REQUEST_BYTES)
    app.add_routes(page.routes())
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        bound = runner.addresses[0][1]
        ready(f"http://{f'[{host}]' if ':' in host else host}:{bound}/")
        while not stopped():
            await asyncio.sleep(0.2)
    finally:
        await runner.cleanup()
