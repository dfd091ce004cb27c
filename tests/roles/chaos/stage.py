"""The stage of the chaos and its run: a chain, Redis, two engines, three gateways with clients, round after round."""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from chain.soak.account import Account
from chain.soak.clients import LatestClient, WishClient
from chain.soak.plan import Injection, Round
from chain.soak.quiet import Checker, Outcome
from chain.soak.stage import Stage as SoakStage
from chain.soak.stage import compared, enter
from chain.soak.world import open_chain

from rtserver.chain.rpc import HttpEndpoint
from rtserver.demo.contracts import Contracts
from rtserver.demo.toolchain import Toolchain
from rtserver.domain.ids import Address, ChainId, TokenId
from rtserver.protocols.channels import HeadChannel, OwnerChannel, PoolChannel, PositionChannel
from rtserver.tools.audit import Audit
from rtserver.tools.capture import Capture
from rtserver.tools.staking import StakerTruth
from rtserver.tools.truth import Truth

from .parts import ChaosRedis, RoleServer
from .plan import GATEWAYS, rounds

__all__ = ["chaos"]

_KIND: Final = "uniswap-v3"
_LIMIT: Final = 10_000
_KNOWN_IDS: Final = 4
# A fault that was not undone by then hangs, and that is a finding.
_ROUND_LIMIT_S: Final = 90.0
_CHARGE_S: Final = 60.0
# Blocks after the faults, in rounds that go on.
_GOING_ON: Final = 3
# More rounds with differences find the same one again.
_MOST_WRONG_ROUNDS: Final = 5


@dataclass(slots=True)
class Stage(SoakStage):
    """The soak's stage, whose servers are engines first, then gateways; only gateways have clients."""

    redis: ChaosRedis
    engines: Sequence[RoleServer]
    gateways: Sequence[RoleServer]

    async def leader(self) -> RoleServer:
        """Return the engine in charge, once there is one."""
        async with asyncio.timeout(_CHARGE_S):
            while True:
                for engine in self.engines:
                    if await engine.is_in_charge():
                        return engine
                await asyncio.sleep(0.1)

    async def do(self, injection: Injection) -> None:
        """Do what is planned, at its time, and undo it."""
        await asyncio.sleep(injection.at_s)
        who, _, what = injection.name.partition(" ")
        if who == "reorg":
            await self.chain.reorg(injection.params["depth"])
        elif who == "redis":
            if what == "stopped":
                await self.redis.stop_for(injection.for_s)
            else:
                await self.redis.kill_for(injection.for_s, emptied=what == "emptied")
        else:
            server = await self._server(who, injection)
            async with server.turn:
                ways: dict[str, Callable[[float], Awaitable[None]]] = {
                    "killed": server.kill_for,
                    "ended": server.end_for,
                    "stopped": server.stop_for,
                }
                await ways[what](injection.for_s)

    async def _server(self, who: str, injection: Injection) -> RoleServer:
        if who == "gateway":
            which: int = injection.params["which"]
            return self.gateways[which]
        leader = await self.leader()
        return leader if who == "leader" else next(one for one in self.engines if one is not leader)


@asynccontextmanager
async def _open_stage(toolchain: Toolchain, contracts: Contracts, *, seed: int, folder: Path) -> AsyncIterator[Stage]:
    rng = random.Random(seed)
    async with AsyncExitStack() as stack:
        chain = await stack.enter_async_context(open_chain(toolchain, contracts, seed=seed))
        deployment = chain.lab.deployment
        redis = ChaosRedis(folder)
        stack.push_async_callback(redis.end)
        await redis.start()
        roles = [*(("engine", f"engine {index}") for index in range(2))]
        roles += [("gateway", f"gateway {index}") for index in range(GATEWAYS)]
        servers = [
            await asyncio.to_thread(RoleServer, name, role, redis.url, deployment, chain.gate, folder)
            for role, name in roles
        ]
        engines, gateways = servers[:2], servers[2:]
        for server in servers:
            server.start()
            stack.callback(server.abandon)

        chain_id = ChainId(deployment.chain_id)
        head = HeadChannel(chain_id).name
        owners = [OwnerChannel(chain_id, Address(owner)).name for owner in deployment.owners]
        pools = [PoolChannel(chain_id, Address(pool.address)).name for pool in deployment.pools]
        ids = rng.sample(sorted(chain.lab.book.nfts), _KNOWN_IDS)
        passing = {PositionChannel(chain_id, _KIND, TokenId(each)).name: TokenId(each) for each in ids}
        everything = [head, *owners, *pools]
        capture = partial(Capture, int(chain_id), _KIND)
        for engine in engines:
            await stack.enter_async_context(engine.running([]))
        for gateway in gateways:
            name = gateway.name
            others = [other.port for other in gateways if other is not gateway]
            clients: list[WishClient | LatestClient] = [
                WishClient(f"{name} all", gateway.port, [*everything, *passing], capture, others),
                WishClient(f"{name} some", gateway.port, [head, *rng.sample(owners, 3)], None, others),
                WishClient(f"{name} pools", gateway.port, rng.sample([*pools, *owners, *passing], 8), None, others),
                LatestClient(f"{name} latest", gateway.port, [head, *rng.sample(owners, 4)], others),
            ]
            await stack.enter_async_context(gateway.running(clients))

        endpoint = HttpEndpoint(chain.node.http_url, timeout_s=20.0)
        stack.push_async_callback(endpoint.close)
        truth = Truth(endpoint, Address(deployment.position_manager), Address(deployment.factory))
        staker = StakerTruth(truth, Address(deployment.position_manager), Address(deployment.staker))

        def make_audit(on_difference: Callable[[Any], None], on_owner: Callable[[Address], None]) -> Audit:
            return Audit(
                truth, int(chain_id), _KIND, everything=True, limit=_LIMIT,
                on_difference=on_difference, on_owner=on_owner, staker=staker,
            )  # fmt: skip

        checker = Checker(chain, gateways, set(everything), passing, make_audit)
        yield Stage(chain, (), servers, checker, redis=redis, engines=engines, gateways=gateways)


async def chaos(
    toolchain: Toolchain,
    contracts: Contracts,
    seed: int,
    *,
    seconds: float,
    say: Callable[[str], None] = lambda text: None,
    folder: Path | None = None,
    last_round: int | None = None,
) -> Account:
    """Run rounds until the time is over; return what was found.

    Args:
        toolchain: For the node.
        contracts: What is deployed on it.
        seed: Who is killed when.
        seconds: How long.
        say: Is told each round before it begins, and each difference.
        folder: Where settings, stores and logs are kept; a temporary one if None.
        last_round: Ends it sooner.
    """
    with tempfile.TemporaryDirectory(prefix="rtserver-chaos-") as made:
        account = Account(seed)
        async with _open_stage(toolchain, contracts, seed=seed, folder=folder or Path(made)) as stage:
            async with asyncio.TaskGroup() as group:
                supervisors = [group.create_task(server.supervise()) for server in (*stage.engines, *stage.gateways)]
                await _run(stage, account, seconds, itertools.islice(rounds(seed), last_round), say)
                for supervisor in supervisors:
                    supervisor.cancel()
            account.refused["no Redis at its start"] += sum(one.refusals for one in (*stage.engines, *stage.gateways))
            for server in stage.servers:
                account.lives += server.lives
                for client in server.clients:
                    account.clients += client.account()
                    account.failures += client.failures
        return account


async def _run(
    stage: Stage, account: Account, seconds: float, planned: itertools.islice[Round], say: Callable[[str], None]
) -> None:
    began = time.monotonic()
    # Before anyone is killed everything has to be right, or nothing that follows says anything.
    enter(account, "before the first round", await compared(stage), stage, say)
    for each in planned:
        if time.monotonic() - began >= seconds:
            break
        if account.wrong_rounds >= _MOST_WRONG_ROUNDS:
            say("too many rounds with differences")
            break
        say(str(each))
        outcome = await _round(stage, each)
        enter(account, str(each), outcome, stage, say)
        kinds = [injection.name for injection in each.injections]
        account.faults.update(kinds)
        if len(kinds) == 1:
            account.settled_by_fault.setdefault(kinds[0], []).append(outcome.equal_s)
        account.rounds += 1
        account.seconds = time.monotonic() - began
    account.refused = stage.chain.refused
    account.blocks, account.actions = stage.chain.market.stats.blocks, stage.chain.market.stats.actions
    account.unsteady = sum(tally.unsteady for tally in stage.checker.tallies.values())


async def _round(stage: Stage, each: Round) -> Outcome:
    try:
        async with stage.chain.trading(each.block_time_s):
            async with asyncio.timeout(_ROUND_LIMIT_S):
                await asyncio.gather(*(stage.do(injection) for injection in each.injections))
            if each.goes_on:
                # Blocks while it heals, as on a chain that waits for nobody; then it stands still after all.
                await asyncio.sleep(_GOING_ON * each.block_time_s)
    except TimeoutError:
        return Outcome(differences=[f"the faults were not over after {_ROUND_LIMIT_S:g} s"])
    return await compared(stage)
