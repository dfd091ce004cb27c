"""Putting everything onto an empty chain: contracts, tokens, balances, pools, base liquidity, incentives.

One block for all of it: contract addresses follow from the deployer's nonce, so nothing waits for a receipt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from .actions import MAX_U256, Actions, Tx
from .book import Book
from .contracts import Contracts
from .deployment import (
    DEMO_POOLS,
    DEMO_TOKENS,
    TICK_SPACING,
    WETH_SPEC,
    Deployment,
    Incentive,
    Pool,
    PoolSpec,
    Token,
    TokenSpec,
    sqrt_price_of,
)
from .node import AnvilNode
from .session import Session

__all__ = ["deploy", "pool_address"]

# Whole tokens for every account: enough for thousands of blocks of market at any price here.
_ACCOUNT_TOKENS: Final = 10**9
# The actor pays for swaps that push a price to the end of its range.
_ACTOR_TOKENS: Final = 10**15
_ACCOUNT_WETH: Final = 10**7 * 10**18
_ACTOR_WETH: Final = 5 * 10**8 * 10**18
_FIRST_OWNER: Final = 3
_INCENTIVE_SECONDS: Final = 30 * 86_400
_INCENTIVE_REWARD: Final = 10**6 * 10**18
_MAX_DURATION_S: Final = 2 * 365 * 86_400
# Stands in for the descriptor: the position manager only calls it for tokenURI, which nothing here reads.
_NOWHERE: Final = "0x" + "0" * 39 + "1"


class _Deployer:
    """Sends creations from one account and knows their addresses beforehand."""

    def __init__(self, session: Session, sender: str, nonce: int) -> None:
        self._session = session
        self._sender = sender
        self._nonce = nonce

    async def create(self, label: str, init_code: bytes) -> str:
        await self._send(Tx(f"deploy {label}", self._sender, None, init_code))
        return _created_address(self._sender, self._nonce - 1)

    async def do(self, label: str, to: str, data: bytes, value: int = 0) -> None:
        await self._send(Tx(label, self._sender, to, data, value))

    async def run(self, tx: Tx) -> None:
        await self._send(tx)

    async def _send(self, tx: Tx) -> None:
        await self._session.send(tx)
        self._nonce += 1


async def deploy(
    node: AnvilNode,
    contracts: Contracts,
    *,
    tokens: Sequence[TokenSpec] = DEMO_TOKENS,
    pools: Sequence[PoolSpec] = DEMO_POOLS,
    owners: int | None = None,
) -> Deployment:
    """Deploy onto a node that mines on demand and return where everything is.

    Args:
        owners: How many accounts get balances as owners; every remaining dev account if None.

    Raises:
        TxFailed: Something reverted, which no healthy chain does here.
    """
    accounts: list[str] = [a.lower() for a in await node.rpc("eth_accounts")]
    house, trader, stranger = accounts[:_FIRST_OWNER]
    people = tuple(accounts[_FIRST_OWNER:][:owners])
    session = Session(node, Book(_NOWHERE, _NOWHERE))
    head = (await session.catch_up())[-1]
    deployer = _Deployer(session, house, int(await node.rpc("eth_getTransactionCount", [house, "latest"]), 16))

    weth_address = await deployer.create("WETH9", contracts.weth.creation())
    factory = await deployer.create("factory", contracts.factory.creation())
    # The factory of v3-core 1.0.1 knows 500, 3000 and 10000; mainnet's owner added this one later.
    await deployer.do("enable 0.01%", factory, contracts.factory.call("enableFeeAmount", 100, 1))
    manager = await deployer.create(
        "position manager", contracts.position_manager.creation(factory, weth_address, _NOWHERE)
    )
    router = await deployer.create("router", contracts.router.creation(factory, weth_address))
    staker = await deployer.create(
        "staker", contracts.staker.creation(factory, manager, _MAX_DURATION_S, _MAX_DURATION_S)
    )
    actor = await deployer.create("actor", contracts.actor.creation())
    deployed = {"WETH": Token("WETH", weth_address, WETH_SPEC.decimals, WETH_SPEC.usd_cents)}
    for spec in tokens:
        address = await deployer.create(spec.symbol, contracts.token.creation(spec.name, spec.symbol, spec.decimals))
        deployed[spec.symbol] = Token(spec.symbol, address, spec.decimals, spec.usd_cents)

    everyone = (house, trader, stranger, *people)
    await _hand_out(session, deployer, contracts, deployed, everyone, actor, (manager, router, staker))

    opened = tuple(_pool(contracts, factory, deployed, spec) for spec in pools)
    places = Deployment(
        chain_id=node.chain_id,
        factory=factory,
        position_manager=manager,
        router=router,
        weth=weth_address,
        staker=staker,
        actor=actor,
        tokens=deployed,
        pools=opened,
        incentives=(),
        house=house,
        trader=trader,
        stranger=stranger,
        owners=people,
    )
    actions = Actions(contracts, places)
    for pool_spec, pool in zip(pools, opened, strict=True):
        token0, token1 = pool.token0, pool.token1
        price = sqrt_price_of(token0, token1)
        await deployer.run(actions.create_pool(house, token0.address, token1.address, pool.fee_pips, price))
        depth0, depth1 = token0.raw_of_usd(pool_spec.depth_usd), token1.raw_of_usd(pool_spec.depth_usd)
        await deployer.run(actions.mint(house, pool, *pool.full_range, depth0, depth1))

    # An incentive may start no earlier than its own block, and staking waits for the start: the same second.
    timestamp = head.timestamp + 1
    incentives = []
    for pool in opened[:2]:
        reward = deployed.get("UNI", deployed["WETH"])
        incentive = Incentive(reward.address, pool.address, timestamp, timestamp + _INCENTIVE_SECONDS, house)
        await deployer.do(
            "create incentive",
            staker,
            contracts.staker.call("createIncentive", incentive.key, _INCENTIVE_REWARD),
        )
        incentives.append(incentive)
    await session.mine(timestamp=timestamp)
    return replace(places, incentives=tuple(incentives))


async def _hand_out(
    session: Session,
    deployer: _Deployer,
    contracts: Contracts,
    tokens: dict[str, Token],
    everyone: Sequence[str],
    actor: str,
    spenders: Sequence[str],
) -> None:
    """Give every account tokens and let the contracts spend them."""
    for symbol, token in tokens.items():
        if symbol == "WETH":
            continue
        unit = 10**token.decimals
        await deployer.do(
            f"mint {symbol}",
            token.address,
            contracts.token.call("mintMany", list(everyone), _ACCOUNT_TOKENS * unit),
        )
        await deployer.do(f"mint {symbol}", token.address, contracts.token.call("mint", actor, _ACTOR_TOKENS * unit))
    weth = tokens["WETH"].address
    wrap = contracts.weth.call("deposit")
    await deployer.do("wrap", weth, wrap, _ACTOR_WETH)
    await deployer.do("fund actor", weth, contracts.weth.call("transfer", actor, _ACTOR_WETH))
    house = everyone[0]
    for account in everyone:
        transactions = [Tx("wrap", account, weth, wrap, _ACCOUNT_WETH)]
        transactions += [
            Tx("approve", account, token.address, contracts.token.call("approve", spender, MAX_U256))
            for token in tokens.values()
            for spender in spenders
        ]
        for tx in transactions:
            # The house's nonces are counted, because its next creation's address depends on them.
            await (deployer.run(tx) if account == house else session.send(tx))


def _pool(contracts: Contracts, factory: str, tokens: dict[str, Token], spec: PoolSpec) -> Pool:
    token0, token1 = sorted((tokens[spec.symbol_a], tokens[spec.symbol_b]), key=lambda t: int(t.address, 16))
    address = pool_address(contracts, factory, token0.address, token1.address, spec.fee_pips)
    return Pool(address, token0, token1, spec.fee_pips, TICK_SPACING[spec.fee_pips])


def pool_address(contracts: Contracts, factory: str, token0: str, token1: str, fee_pips: int) -> str:
    """Return where the factory puts a pool (CREATE2), tokens in address order."""
    salt = keccak(encode(["address", "address", "uint24"], [token0, token1, fee_pips]))
    code = keccak(contracts.pool.bytecode)
    return "0x" + keccak(b"\xff" + bytes.fromhex(factory[2:]) + salt + code)[-20:].hex()


def _created_address(sender: str, nonce: int) -> str:
    # RLP of [sender, nonce]: a byte under 0x80 is itself, zero is the empty string.
    digits = nonce.to_bytes((nonce.bit_length() + 7) // 8, "big")
    number = digits if len(digits) == 1 and nonce < 0x80 else bytes([0x80 + len(digits)]) + digits
    payload = bytes([0x80 + 20]) + bytes.fromhex(sender[2:]) + number
    return "0x" + keccak(bytes([0xC0 + len(payload)]) + payload)[-20:].hex()
