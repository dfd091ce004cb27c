"""Which requests become sockets. Answers the others before anything is spent on them, saying what would be right."""

import base64
import binascii

from aiohttp import web

from .problems import problem

__all__ = ["refusal"]


def refusal(request: web.Request, origins: tuple[str, ...]) -> web.Response | None:
    """Return why a request can't become a socket, None where it can.

    Args:
        request: A GET.
        origins: Origins of pages that may connect; `*` for all. What is no page sends none and may.
    """
    headers = request.headers
    origin = headers.get("Origin")
    if origin is not None and "*" not in origins and origin not in origins:
        return problem(403, "forbidden", f"pages of {origin[:200]} may not connect here; see the setting origins")
    if headers.get("Upgrade", "").strip().lower() != "websocket":
        return problem(426, "bad_request", "this is a WebSocket: connect with ws://", {"Upgrade": "websocket"})
    if "upgrade" not in (word.strip().lower() for word in headers.get("Connection", "").split(",")):
        return problem(400, "bad_request", "a handshake needs the header Connection: Upgrade")
    if headers.get("Sec-WebSocket-Version") != "13":
        text = "only version 13 of WebSocket is spoken here: send Sec-WebSocket-Version: 13"
        return problem(426, "bad_request", text, {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"})
    if not _is_key(headers.get("Sec-WebSocket-Key", "")):
        return problem(400, "bad_request", "Sec-WebSocket-Key has to be 16 bytes in base64")
    return None


def _is_key(text: str) -> bool:
    try:
        return len(text) <= 64 and len(base64.b64decode(text, validate=True)) == 16
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        return False
