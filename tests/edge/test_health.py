"""Alive, ready or why not, and the metrics."""

from .served import Served, served


async def test_alive(server: Served) -> None:
    response, body = await server.get("/health/live")
    assert (response.status, body) == (200, {"status": "live"})


async def test_not_ready_before_the_first_head() -> None:
    async with served() as server:
        response, body = await server.get("/health/ready")
        assert response.status == 503
        assert body["status"] == "not ready"
        assert "no head yet" in body["chains"][0]["reason"]


async def test_ready_while_heads_come(server: Served) -> None:
    response, body = await server.get("/health/ready")
    assert response.status == 200
    (chain,) = body["chains"]
    assert chain["ready"]
    assert (chain["head"]["number"], chain["ageMs"], chain["limitMs"]) == (1, 0, 20_000)
    server.now += 21
    response, body = await server.get("/health/ready")
    assert response.status == 503
    assert body["chains"][0]["reason"] == "no new head for 21 s, the limit is 20 s"
    server.mine()
    response, _ = await server.get("/health/ready")
    assert response.status == 200


async def test_all_chains_have_to_be_ready() -> None:
    async with served(chain_ids=(1, 31337)) as server:
        server.mine()
        response, body = await server.get("/health/ready")
        assert response.status == 503
        assert [chain["ready"] for chain in body["chains"]] == [False, True]


async def test_not_ready_while_shutting_down(server: Served) -> None:
    server.health.is_draining = True
    response, body = await server.get("/health/ready")
    assert (response.status, body["reason"]) == (503, "shutting down")
    response, _ = await server.get("/health/live")
    assert response.status == 200


async def test_metrics(server: Served) -> None:
    await server.get("/api/v1/info")
    await server.get("/nothing/here")
    response, text = await server.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain")
    assert 'rtserver_http_requests_total{route="/api/v1/info",status="200"} 1.0' in text
    assert 'rtserver_http_requests_total{route="unknown",status="404"} 1.0' in text
    assert "/nothing/here" not in text, "no label holds what a client chose"


async def test_prices_are_told_and_no_reason_to_go_elsewhere(server: Served) -> None:
    told = {"sources": [{"source": "coingecko", "lastSuccessMs": None, "breaker": "open"}], "chains": {}}
    server.health._prices = lambda: told
    response, body = await server.get("/health/ready")
    assert (response.status, body["prices"]) == (200, told)
