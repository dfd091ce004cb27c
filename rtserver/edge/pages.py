"""The page at / and its files."""

from aiohttp import web

from ..web import CONTENT_SECURITY_POLICY, INDEX_HTML, STATIC_DIR

__all__ = ["page_routes"]


def page_routes() -> list[web.AbstractRouteDef]:
    """Return the routes of the dashboard and of the browser client."""

    async def index(request: web.Request) -> web.FileResponse:
        return web.FileResponse(
            INDEX_HTML,
            headers={
                "Content-Security-Policy": CONTENT_SECURITY_POLICY,
                "Referrer-Policy": "no-referrer",
                "Cache-Control": "no-cache",
            },
        )

    return [web.get("/", index), web.static("/static", STATIC_DIR)]
