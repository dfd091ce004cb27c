"""HTTP errors as RFC 9457 problem details, and the headers that every answer carries.

No stack trace leaves: what is not a known error is logged here and answered as a plain 500. What a client sent is
repeated shortened, if at all.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
from aiohttp import web

from ..domain.errors import ClientError, RetryableError
from ..obs.metrics import Metrics
from .proxies import Proxies
from .sparse_log import SparseLog, failure

__all__ = ["json_response", "problem", "problem_middleware", "seal"]

_STATUS: Final = {
    "bad_request": 400, "bad_channel": 400, "not_found": 404, "limit": 429, "rate": 429,
    "chain_unavailable": 503, "load_timeout": 503, "history_unavailable": 503, "unauthorized": 401,
}  # fmt: skip
_TITLES: Final = {
    400: "Bad request", 401: "Unauthorized", 403: "Forbidden", 404: "Not found", 405: "Method not allowed",
    413: "Too large", 417: "Expectation failed", 426: "Upgrade required", 429: "Too many requests",
    500: "Internal error", 503: "Unavailable",
}  # fmt: skip
# Room for a sentence that lists what is allowed; what comes from clients is shortened before it gets here.
_DETAIL_CHARS: Final = 500
_PATH_CHARS: Final = 120
_WHAT_THERE_IS: Final = "REST is at /api/v1/…, the socket at /ws, and /asyncapi.json describes it"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def json_response(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return a JSON answer."""
    return web.Response(
        body=orjson.dumps(body), status=status, headers=headers, content_type="application/json", charset="utf-8"
    )


def problem(status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    """Return a problem document. `code` is stable and for programs, `detail` for people: 500 characters of it."""
    body = {
        "type": "about:blank",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        # Headers arrive with bytes that are no UTF-8, as surrogates; JSON has no place for them.
        "detail": detail[:_DETAIL_CHARS].encode(errors="replace").decode(),
        "code": code,
    }
    return web.Response(
        body=orjson.dumps(body), status=status, headers=headers, content_type="application/problem+json"
    )


def seal(response: web.StreamResponse) -> None:
    """Set the headers that every answer carries."""
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    # Otherwise the versions of everything underneath.
    response.headers.setdefault("Server", "rtserver")


def problem_middleware(metrics: Metrics, origins: tuple[str, ...], proxies: Proxies | None = None) -> Any:
    """Return the middleware that turns errors into problems, counts requests, answers CORS and looks through proxies.

    Args:
        metrics: Counts requests.
        origins: Origins of pages that may read; `*` for all.
        proxies: Who is believed about whom requests come from; nobody by default.
    """
    anywhere = "*" in origins
    trusted = proxies or Proxies()
    log = SparseLog()

    def allow(request: web.Request, response: web.StreamResponse) -> None:
        seal(response)
        if not anywhere:
            # Whatever the answer: a cache must not give one origin's to another.
            response.headers.add("Vary", "Origin")
        origin = request.headers.get("Origin")
        if origin is not None and (anywhere or origin in origins):
            response.headers["Access-Control-Allow-Origin"] = "*" if anywhere else origin
            response.headers["Access-Control-Expose-Headers"] = "ETag, Age, Retry-After"

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            response: web.StreamResponse = web.Response(
                status=204,
                headers={
                    "Access-Control-Allow-Methods": "GET, HEAD",
                    "Access-Control-Allow-Headers": "Content-Type, If-None-Match",
                    "Access-Control-Max-Age": "600",
                },
            )
        else:
            response = await _answer(trusted.seen_through(request), handler, log)
        if not response.prepared:
            allow(request, response)
        resource = request.match_info.route.resource
        metrics.http.labels(resource.canonical if resource else "unknown", response.status).inc()
        return response

    return middleware


async def _answer(request: web.Request, handler: Handler, log: SparseLog) -> web.StreamResponse:
    try:
        if request.method not in ("GET", "HEAD"):
            raise web.HTTPMethodNotAllowed(request.method, ("GET", "HEAD"))
        return await handler(request)
    except ClientError as error:
        status = _STATUS.get(error.code, 400)
        headers = {}
        if error.retry_after_ms is not None:
            headers["Retry-After"] = str(max(error.retry_after_ms // 1000, 1))
        return problem(status, error.code, error.message, headers)
    except RetryableError:
        return problem(503, "chain_unavailable", "the chain does not answer", {"Retry-After": "5"})
    except web.HTTPNotFound:
        return problem(404, "not_found", f"nothing at {request.path[:_PATH_CHARS]}; {_WHAT_THERE_IS}")
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        return problem(
            405, "bad_request", f"{request.method[:20]} is not allowed here; allowed: {allowed}", {"Allow": allowed}
        )
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return problem(error.status, "bad_request", error.reason)
    except Exception as error:
        if request.transport is None:
            # The client has gone: there is no one to answer, and what failed is most likely that.
            raise ConnectionError("the client has gone") from error
        log.error("request failed", path=request.path, **failure(error))
        return problem(500, "internal", "something went wrong here; it has been logged")
