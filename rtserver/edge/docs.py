"""What describes the server to programs: the socket's AsyncAPI document. What is reserved is called so."""

import re
from typing import Final

import orjson
from aiohttp import web

from ..domain.errors import ClientError
from ..wire.asyncapi import asyncapi_document

__all__ = ["docs_routes"]

# A name, an IPv4 or IPv6 address, and a port: nothing that means anything in JSON.
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
# Stands for the host in a document that is made once: making it takes over a millisecond, and anyone may ask.
_HOLE: Final = "host.invalid"


def docs_routes(version: str) -> list[web.AbstractRouteDef]:
    """Return the routes.

    Args:
        version: The server's own, for the document's head.
    """
    plain, secure = (
        orjson.dumps(asyncapi_document(version, _HOLE, is_secure=is_secure)) for is_secure in (False, True)
    )

    async def asyncapi(request: web.Request) -> web.Response:
        # The address that the client came by is the one it can connect to.
        # Not `request.host`: without the header that asks a name server, and everyone waits.
        host = request.headers.get("Host", "")
        if _HOST.fullmatch(host) is None:
            raise ClientError("bad_request", "the header Host is not a name or an address with a port")
        body = (secure if request.secure else plain).replace(_HOLE.encode(), host.encode())
        return web.Response(
            body=body, headers={"Cache-Control": "no-cache"}, content_type="application/json", charset="utf-8"
        )

    return [web.get("/asyncapi.json", asyncapi)]
