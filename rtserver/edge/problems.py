"""HTTP errors as RFC 9457 problem details, and the headers that every answer carries.

No stack trace leaves: what is not a known error is logged here and answered as a plain 500.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
import structlog
from aiohttp import web

from ..domain.errors import ClientError, RetryableError
from ..obs.metrics import Metrics

__all__ = ["json_response", "problem", "problem_middleware"]

log = structlog.get_logger(__name__)

_STATUS: Final = {
    "bad_request": 400, "bad_channel": 400, "not_found": 404, "limit": 429, "rate": 429,
    "chain_unavailable": 503, "load_timeout": 503, "unauthorized": 401,
}  # fmt: skip
_TITLES: Final = {
    400: "Bad request", 401: "Unauthorized", 404: "Not found", 405: "Method not allowed", 413: "Too large",
    429: "Too many requests", 500: "Internal error", 503: "Unavailable",
}  # fmt: skip

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def json_response(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return a JSON answer."""
    return web.Response(
        body=orjson.dumps(body), status=status, headers=headers, content_type="application/json", charset="utf-8"
    )


def problem(status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    """Return a problem document. `code` is stable and for programs, `detail` for people."""
    body = {
        "type": "about:blank",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        "code": code,
    }
    return web.Response(
        body=orjson.dumps(body), status=status, headers=headers, content_type="application/problem+json"
    )


def problem_middleware(metrics: Metrics, origins: tuple[str, ...]) -> Any:
    """Return the middleware that turns errors into problems, counts requests and answers CORS."""
    anywhere = "*" in origins

    def allow(request: web.Request, response: web.StreamResponse) -> None:
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        origin = request.headers.get("Origin")
        if origin is not None and (anywhere or origin in origins):
            response.headers["Access-Control-Allow-Origin"] = "*" if anywhere else origin
            response.headers["Access-Control-Expose-Headers"] = "ETag, Age, Retry-After"
            if not anywhere:
                response.headers.add("Vary", "Origin")

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
            response = await _answer(request, handler)
        if not response.prepared:
            allow(request, response)
        resource = request.match_info.route.resource
        metrics.http.labels(resource.canonical if resource else "unknown", response.status).inc()
        return response

    return middleware


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
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
        return problem(404, "not_found", f"nothing at {request.path}; the interface is described at /")
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        return problem(
            405, "bad_request", f"{request.method} is not allowed here; allowed: {allowed}", {"Allow": allowed}
        )
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return problem(error.status, "bad_request", error.reason)
    except Exception:
        log.exception("request failed", path=request.path)
        return problem(500, "internal", "something went wrong here; it has been logged")
