"""The page at / and its files: read once at the start, then served from memory.

No path of a client's ever reaches the file system: a name is one of those that were read, or it is nothing.
"""

import hashlib
import mimetypes
from pathlib import Path
from typing import Final

from aiohttp import web

from ..web import CONTENT_SECURITY_POLICY, INDEX_HTML, STATIC_DIR

__all__ = ["is_unchanged", "page_routes"]

# Types that a machine's own table may lack, or have wrong: browsers run no module and take no style without them.
_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".ts": "text/plain", ".html": "text/html"}


class _File:
    """A file as it is sent."""

    def __init__(self, path: Path, headers: dict[str, str]) -> None:
        self._body = path.read_bytes()
        self._type = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        etag = f'"{hashlib.sha256(self._body).hexdigest()[:16]}"'
        # A new version of the server may bring a new file under the same name.
        self._headers = {"ETag": etag, "Cache-Control": "no-cache", **headers}

    def answer(self, request: web.Request) -> web.Response:
        """Return the file, or 304 where the client has it."""
        if is_unchanged(request, self._headers["ETag"]):
            return web.Response(status=304, headers=self._headers)
        charset = None if self._type.startswith("image/") else "utf-8"
        return web.Response(body=self._body, headers=self._headers, content_type=self._type, charset=charset)


def is_unchanged(request: web.Request, etag: str) -> bool:
    """Return whether a request names the entity tag that it would get, by the weak comparison of RFC 9110."""
    asked = [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]
    return etag.removeprefix("W/") in asked or "*" in asked


def page_routes() -> list[web.AbstractRouteDef]:
    """Return the routes of the dashboard and of the browser client."""
    page = _File(INDEX_HTML, {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Referrer-Policy": "no-referrer"})
    files = {path.name: _File(path, {}) for path in STATIC_DIR.iterdir() if path.is_file()}

    async def index(request: web.Request) -> web.Response:
        return page.answer(request)

    async def static(request: web.Request) -> web.Response:
        file = files.get(request.match_info["name"])
        if file is None:
            raise web.HTTPNotFound
        return file.answer(request)

    return [web.get("/", index), web.get("/static/{name}", static)]
