"""Only what was touched is read: 0, 1 or 2 calls a block, whatever is watched."""

from rtserver.demo.lab import Lab
from rtserver.demo.market import Market

from .counting import CountingProxy
from .world import open_world, position_channel


async def test_calls_do_not_grow_with_what_is_watched(lab: Lab) -> None:
    market = Market(lab, seed=11)
    await market.steps(60)
    async with CountingProxy(lab.node.http_url).running() as proxy, open_world(lab, http=proxy.url) as world:
        await world.open(position_channel(min(lab.book.nfts)))
        await world.open_owners((*lab.owners, lab.deployment.staker))
        await world.open(*(position_channel(token_id) for token_id in lab.book.nfts))
        await world.remembered()
        counts = []
        for _ in range(40):
            proxy.reset()
            await market.step()
            await world.settled()
            counts.append(sum(proxy.methods.values()))
            assert set(proxy.methods) <= {"eth_getLogs", "eth_call"}
            assert proxy.requests == sum(proxy.methods.values())
        await world.assert_exact()
        assert max(counts) <= 2
        assert 2 in counts
        calls = world.metrics.registry.get_sample_value("rtserver_block_rpc_calls_sum", {"chain": "local"})
        assert calls == sum(counts)


async def test_an_empty_block_takes_no_call(lab: Lab) -> None:
    market = Market(lab, seed=12)
    await market.steps(30)
    async with CountingProxy(lab.node.http_url).running() as proxy, open_world(lab, http=proxy.url) as world:
        await world.open_owners()
        await world.remembered()
        proxy.reset()
        for _ in range(5):
            await lab.mine()
            await world.settled()
        assert proxy.requests == 0


async def test_a_first_load_is_two_round_trips_and_shared(lab: Lab) -> None:
    market = Market(lab, seed=13)
    await market.steps(40)
    ids = [token_id for token_id, nft in lab.book.nfts.items() if nft.liquidity]
    async with CountingProxy(lab.node.http_url).running() as proxy, open_world(lab, http=proxy.url) as world:
        proxy.reset()
        await world.open(position_channel(ids[0]))
        assert proxy.methods["eth_call"] == 2
        await world.remembered()
        proxy.reset()
        await world.open(*(position_channel(token_id) for token_id in ids[1:]))
        # The two of all together; past events are read beside them, and nobody waits but for those that owe something.
        assert proxy.methods["eth_call"] == 2
        await world.assert_exact()


async def test_a_mint_into_a_known_pool_costs_no_third_call(lab: Lab) -> None:
    owner = lab.owners[0]
    pool = lab.pool("WETH", "USDC", 500)
    tick = pool.align(lab.pool_state(pool).tick)
    await lab.mint_now(owner, pool, tick - 100, tick + 100)
    async with CountingProxy(lab.node.http_url).running() as proxy, open_world(lab, http=proxy.url) as world:
        await world.open_owners([owner])
        await world.remembered()
        proxy.reset()
        token_id = await lab.mint_now(owner, pool, tick - 700, tick + 300)
        await world.settled()
        assert proxy.methods == {"eth_getLogs": 1, "eth_call": 1}
        assert f"uniswap-v3:{token_id}" in world.owner(owner)
        await world.assert_exact()
