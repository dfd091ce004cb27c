"""What describes the server to programs: the socket's AsyncAPI document. Never describes what isn't served."""

from aiohttp import web

from ..wire.asyncapi import asyncapi_document
from .problems import json_response

__all__ = ["docs_routes"]


def docs_routes(version: str) -> list[web.AbstractRouteDef]:
    """Return the routes.

    Args:
        version: The server's own, for the document's head.
    """

    async def asyncapi(request: web.Request) -> web.Response:
        # The address that the client came by is the one it can connect to.
        document = asyncapi_document(version, request.host, is_secure=request.secure)
        return json_response(document, headers={"Cache-Control": "no-cache"})

    return [web.get("/asyncapi.json", asyncapi)]
