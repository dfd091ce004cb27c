"""Whatever is sent, the answer is a problem that says what is wrong: never a 500, never a trace, never silence."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from .raw import HANDSHAKE, exchange, get, opened, read_reply
from .served import OWNER, Served, served

NOWHERE = [
    b"/static/" + b"a" * 5000,
    b"/static/" + b"a" * 300,
    b"/static/" + b"a/" * 2500,
    b"/static/a%00b",
    b"/static/",
    b"/static",
    b"/static/rtserver-client.js/",
    b"/static/rtserver-client.js/x",
    b"/static/%2e%2e/index.html",
    b"/static/..%2findex.html",
    b"/static/%2e%2e%2f%2e%2e%2f%2e%2e%2fetc/passwd",
    b"/static//etc/passwd",
    b"/static/%ff%fe",
    b"/static/%zz%",
    b"/" + b"x" * 7000,
    b"/%00",
    b"/%ff%ed%a0%80",
    b"//evil/api",
]
# No request at all, or one that can't be told from an attack: answered before any route.
MALFORMED = {
    "a path that is too long": get(b"/" + b"x" * 9000),
    "a query that is too long": get(b"/api/v1/snapshot?channel=" + b"x" * 80_000),
    "a raw zero byte": get(b"/\x00"),
    "no method": get(b"/", method=b"FOO"),
    "a method that is too long": get(b"/", method=b"A" * 5000),
    "a method in lower case": get(b"/", method=b"get"),
    "a bad host in the first line": get(b"http://[evil/api/v1/info"),
    "a bad port in the first line": get(b"http://evil:99999/api/v1/info"),
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": get(b"/", b"Host: y"),
    "another version": b"GET / HTTP/3.7\r\nHost: x\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),
    "nothing of the kind": b"\r\n\r\n\x00\xff\xfe garbage\r\n\r\n",
    "a header that is too long": get(b"/", b"X: " + b"x" * 20_000),
    "many headers": get(b"/", *(b"X%d: 1" % number for number in range(300))),
    "a bad header name": get(b"/", b"X y: 1"),
    "a bad header value": get(b"/", b"X: \x01"),
    "a lone CR": get(b"/", b"X: a\rb"),
    "a negative length": get(b"/", b"Content-Length: -1"),
    "an endless length": get(b"/", b"Content-Length: " + b"9" * 26),
    "two lengths": get(b"/", b"Content-Length: 3", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "a bad encoding": get(b"/", b"Transfer-Encoding: foo", body=b"zz\r\n\r\n"),
}


@pytest.mark.parametrize("path", NOWHERE)
async def test_a_path_to_nowhere_is_404(server: Served, path: bytes) -> None:
    reply = await exchange(server.port, get(path))
    assert reply.status == 404
    assert "nothing at /" in reply.problem["detail"]


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_is_no_request_is_a_problem_and_one_short_line(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with capture_logs() as lines:
        async with served() as server:
            reply = await exchange(server.port, sent)
            assert reply.status == 400
            assert reply.problem["code"] == "bad_request"
            metrics = server.metrics.registry
            assert metrics.get_sample_value("rtserver_http_requests_total", {"route": "malformed", "status": "400"})
    assert [line["event"] for line in lines] == ["malformed request"]
    assert all(len(str(value)) <= 200 for value in lines[0].values())
    assert "xxx" not in str(lines), "nothing of what was sent"
    assert "evil" not in str(lines) + str(reply.body)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("header", "path"),
    [
        (b"Range: bytes=zz", b"/static/rtserver-client.js"),
        (b"Range: bytes=" + b"9" * 5000 + b"-", b"/static/rtserver-client.js"),
        (b"Range: bytes=5-1", b"/"),
        (b"If-Modified-Since: Mon, 99 Jan 99999999999999 00:00:00 GMT", b"/static/rtserver-client.js"),
        (b"If-Match: \xff", b"/static/rtserver-client.js"),
        (b'If-None-Match: \xff,,"W/', b"/static/rtserver-client.js"),
        (b"If-None-Match: " + b"," * 8000, b"/api/v1/snapshot?channel=head:31337"),
        (b"Accept: \xff,,;q=9", b"/api/v1/info"),
        (b"Accept-Encoding: gzip,\xff", b"/"),
        (b"Origin: \xff\xfe", b"/api/v1/info"),
        (b"Content-Type: \xff;;;=", b"/api/v1/info"),
        (b"Cookie: =;;\xff", b"/api/v1/info"),
        (b"Content-Encoding: gzip", b"/api/v1/info"),
        (b"X: y", b"http://xn--a/api/v1/info"),
        (b"X: y", b"/api/v1/info?%zz=%&" + b"a=1&" * 1900),
    ],
)
async def test_headers_that_mean_nothing_change_nothing(
    server: Served, caplog: pytest.LogCaptureFixture, header: bytes, path: bytes
) -> None:
    server.states["head:31337"] = {}
    reply = await exchange(server.port, get(path, header))
    assert reply.status == 200
    assert reply.body
    assert caplog.records == []


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (f"/api/v1/positions/summary?owner={OWNER}&owner=0x", "owner is given 2 times"),
        (f"/api/v1/positions/summary?owner={OWNER}&chainId=1&chainId=31337", "chainId is given 2 times"),
        ("/api/v1/snapshot?channel=head:31337&channel=head:1&channel=", "channel is given 3 times"),
        ("/api/v1/positions/1/details?protocol=a&protocol=b", "protocol is given 2 times"),
        ("/api/v1/snapshot?channel=%ff%ed%a0%80", "channels are"),
        ("/api/v1/snapshot?channel=head:31337%00", "chainId must be a decimal number"),
        ("/api/v1/positions/%ff/details", "tokenId must be a decimal number"),
        ("/api/v1/positions/1%2F2/details", "tokenId must be a decimal number"),
        ("/api/v1/positions/1/details?protocol=%ed%a0%80", "served are uniswap-v3"),
    ],
)
async def test_parameters_that_mean_nothing_are_named(server: Served, path: str, says: str) -> None:
    reply = await exchange(server.port, get(path.encode()))
    assert reply.status == 400
    assert says in reply.problem["detail"]
    assert server.wanted == []


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "PROPFIND", "CONNECT"])
@pytest.mark.parametrize("path", ["/api/v1/info", "/ws", "/static/rtserver-client.js", "/nowhere"])
async def test_only_get_and_head(server: Served, method: str, path: str) -> None:
    target = b"a:1" if method == "CONNECT" else path.encode()
    reply = await exchange(server.port, get(target, method=method.encode()))
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
    assert f"{method} is not allowed" in reply.problem["detail"]


async def test_head_has_no_body(server: Served) -> None:
    reader, writer = await opened(server.port)
    writer.write(get(b"/nowhere", method=b"HEAD") + get(b"/ws", method=b"HEAD") + get(b"/health/live"))
    statuses = []
    for _ in range(2):
        head = await reader.readuntil(b"\r\n\r\n")
        statuses.append(int(head.split()[1]))
    assert statuses == [404, 426]
    assert (await read_reply(reader)).status == 200
    writer.close()


async def test_expectations(server: Served) -> None:
    reply = await exchange(server.port, get(b"/api/v1/info", b"Expect: miracles"))
    assert reply.status == 417
    assert "miracles" in reply.problem["detail"]


@pytest.mark.parametrize("host", [b"\xff\xfe", b"evil/<script>", b"[::", b'a"b', b"", b"a:123456"])
async def test_a_host_that_is_none(server: Served, host: bytes) -> None:
    reply = await exchange(server.port, b"GET /asyncapi.json HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    assert reply.status == 400
    assert "Host" in reply.problem["detail"]


@pytest.mark.parametrize("host", [b"api.example", b"127.0.0.1:8080", b"[::1]:8080", b"a_b.internal"])
async def test_a_host_is_where_the_document_says_to_connect(server: Served, host: bytes) -> None:
    reply = await exchange(server.port, b"GET /asyncapi.json HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    assert reply.status == 200
    assert b'"host":"' + host + b'"' in reply.body
    assert b"host.invalid" not in reply.body


@pytest.mark.parametrize(
    ("was", "becomes", "status", "says"),
    [
        (b"Version: 13", b"Version: 99", 426, "version 13"),
        (b"Sec-WebSocket-Version: 13\r\n", b"", 426, "version 13"),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"zz", 400, "16 bytes in base64"),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"\xff\xfe", 400, "16 bytes in base64"),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"A" * 4096, 400, "16 bytes in base64"),
        (b"Connection: Upgrade", b"Connection: keep-alive", 400, "Connection: Upgrade"),
        (b"Upgrade: websocket", b"Upgrade: h2c", 426, "connect with ws://"),
    ],
)
async def test_half_a_handshake(server: Served, was: bytes, becomes: bytes, status: int, says: str) -> None:
    reply = await exchange(server.port, HANDSHAKE.replace(was, becomes))
    assert reply.status == status
    assert says in reply.problem["detail"]
    assert len(server.sockets._at_once) == 0


async def test_subprotocols_and_extensions_are_not_taken_and_not_logged(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    extra = b"Sec-WebSocket-Extensions: permessage-deflate; zz\r\n\r\n"
    reader, writer = await opened(server.port)
    writer.write(HANDSHAKE.replace(b"\r\n\r\n", b"\r\n" + extra))
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert b" 101 " in head
    assert b"extensions" not in head
    writer.close()
    assert caplog.records == []


async def test_pages_of_an_origin_that_is_no_text_are_refused() -> None:
    async with served(origins=("https://good.example",)) as server:
        reply = await exchange(server.port, HANDSHAKE.replace(b"Host: x", b"Host: x\r\nOrigin: \xff\xfe"))
        assert reply.status == 403
        assert reply.problem["code"] == "forbidden"
        reply = await exchange(server.port, get(b"/api/v1/info"))
        assert reply.headers["vary"] == "Origin", "a cache may not give it to another origin"


async def test_a_body_that_nobody_asked_for_is_not_waited_for(server: Served) -> None:
    reader, writer = await opened(server.port)
    writer.write(get(b"/api/v1/info", b"Content-Length: 1000000000000", body=b"x" * 100))
    async with asyncio.timeout(10):
        assert (await read_reply(reader)).status == 200
        while await reader.read(1 << 16):
            pass
    writer.close()


async def test_a_line_of_twenty_megabytes_is_not_kept(server: Served) -> None:
    _, writer = await opened(server.port)
    writer.write(b"GET / HTTP/1.1\r\nX: ")
    sent = 0
    try:
        while sent < 20 << 20:
            writer.write(b"x" * (1 << 16))
            sent += 1 << 16
            await writer.drain()
    except ConnectionError:
        pass
    else:
        pytest.fail("all of it was taken")
    writer.close()
    assert (await exchange(server.port, get(b"/health/live"))).status == 200


async def test_a_failure_is_one_line_that_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no such thing" + "!" * 1000)

    with capture_logs() as lines:
        async with served() as server:
            monkeypatch.setattr(server.hub, "peek", fail)
            for _ in range(100):
                reply = await exchange(server.port, get(b"/api/v1/snapshot?channel=head:31337&x=" + b"y" * 5000))
                assert reply.status == 500
                assert reply.problem["code"] == "internal"
    assert 20 <= len(lines) < 50, "the rest is counted"
    line = lines[0]
    assert (line["event"], line["error"], line["path"]) == ("request failed", "ValueError", "/api/v1/snapshot")
    assert "snapshot > rest.py" in line["calls"]
    assert "fail" in line["calls"]
    assert all(len(str(value)) <= 200 for value in line.values())


async def test_a_client_that_left_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with capture_logs() as lines:
        async with served() as server:

            def leave(*_: object) -> None:
                for connection in server.connections:
                    connection.force_close()
                raise ConnectionResetError("gone")

            monkeypatch.setattr(server.hub, "peek", leave)
            with pytest.raises(asyncio.IncompleteReadError):
                await exchange(server.port, get(b"/api/v1/snapshot?channel=head:31337"))
    assert lines == []
