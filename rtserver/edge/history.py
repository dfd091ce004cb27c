"""REST: the past of a position, from what was recorded of it.

Opens no channel: a position that nobody watches has the past that it had when somebody did.
"""

import hashlib
import re
from typing import Final, Protocol

import orjson
from aiohttp import web

from ..domain.diff import JsonObject
from ..domain.errors import ClientError
from ..domain.ids import ChainId, TokenId
from .pages import is_unchanged
from .past_answers import PastAnswer, PastAnswers
from .rest import Rest

__all__ = ["HistoryApi", "PastReader"]

# A point is 250 bytes.
MAX_POINTS: Final = 1000
_POINTS: Final = 200
_WINDOW: Final = "24h"
_WINDOW_FORM: Final = re.compile(r"([1-9][0-9]{0,3})([mhdw])")
_UNITS_S: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
# Ten years: longer ago there were no such positions.
_MAX_WINDOW_S: Final = 3650 * 86_400


class PastReader(Protocol):
    """Where the past is read; see history.reading."""

    async def read(self, chain_id: ChainId, protocol: str, token_id: TokenId, length_s: int, count: int) -> JsonObject:
        """Return a window that ends now, with at most so many points."""


class HistoryApi:
    """`GET /api/v1/positions/{tokenId}/history`.

    Args:
        rest: The rest of REST.
        past: Where the past is read; None where none is kept.
        answers: Those that were given lately.
    """

    def __init__(self, rest: Rest, past: PastReader | None, answers: PastAnswers) -> None:
        self._rest = rest
        self._past = past
        self._answers = answers

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        return [web.get("/api/v1/positions/{tokenId}/history", self.history)]

    async def history(self, request: web.Request) -> web.Response:
        """Answer a window of a position's past (`window=24h`), as at most so many points (`points=200`)."""
        channel = self._rest.position_channel(request)
        window = self._rest.one(request, "window") or _WINDOW
        length_s = _length_s(window)
        count = _count(self._rest.one(request, "points"))
        past = self._past
        if past is None:
            raise ClientError("not_found", "no history is kept here: see history.enabled and store.enabled")
        place = channel.chain_id, channel.protocol, channel.token_id

        async def read() -> PastAnswer:
            await self._rest.charge_load(request.remote)
            body = orjson.dumps(await past.read(*place, length_s, count))
            return PastAnswer(body, hashlib.blake2b(body, digest_size=8).hexdigest())

        answer = await self._answers.get((*place, length_s, count), read)
        # Beside what was read stands how it was asked for: 24h and 1d are the same.
        etag = f'W/"{answer.etag}{window}"'
        headers = {"ETag": etag, "Cache-Control": "no-cache"}
        if is_unchanged(request, etag):
            return web.Response(status=304, headers=headers)
        body = answer.body[:-1] + f',"window":"{window}"}}'.encode()
        return web.Response(body=body, headers=headers, content_type="application/json", charset="utf-8")


def _length_s(window: str) -> int:
    found = _WINDOW_FORM.fullmatch(window)
    length_s = 0 if found is None else int(found[1]) * _UNITS_S[found[2]]
    if not 0 < length_s <= _MAX_WINDOW_S:
        raise ClientError(
            "bad_request",
            f"window {window[:20]!r} is none: a number and m, h, d or w, such as 1h, 24h, 7d, 30d; at most 3650d",
        )
    return length_s


def _count(text: str | None) -> int:
    if text is None:
        return _POINTS
    if not text.isascii() or not text.isdigit() or len(text) > 4 or not 1 <= int(text) <= MAX_POINTS:
        raise ClientError("bad_request", f"points {text[:20]!r} is none: a number from 1 to {MAX_POINTS}")
    return int(text)
