"""What the chain itself answers about positions, at one block hash: the oracle that `verify` compares with.

Amounts and fees are what `decreaseLiquidity` and `collect` would pay the NFT's holder, asked as static calls;
nothing is computed here. Each call is a call of its own, as `msg.sender` matters, in JSON-RPC batches.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from eth_utils.crypto import keccak

from ..chain.refusals import Refusal
from ..chain.rpc import Endpoint, RpcError, TransportError
from ..domain.errors import ChainUnavailable, PermanentError, RetryableError
from ..domain.ids import Address, TokenId
from ..protocols.addresses import ZERO_ADDRESS
from ..protocols.base import Call
from ..protocols.tokens import decimals_call, decode_decimals, decode_symbol, symbol_call
from ..protocols.uniswap_v3.reads import (
    GROWTH0,
    GROWTH1,
    LIQUIDITY,
    SLOT0,
    NftPosition,
    balance_call,
    decode_address,
    decode_nft,
    decode_slot0,
    decode_uint,
    nft_call,
    owner_call,
    token_of_owner_call,
)

__all__ = ["BlockGone", "BlockTruth", "PoolTruth", "PositionTruth", "TokenTruth", "TooManyPositions", "Truth"]

MAX_U128: Final = (1 << 128) - 1
MAX_U256: Final = (1 << 256) - 1
# Most public endpoints take 100 calls a batch.
_BATCH: Final = 100
_PAUSE_S: Final = 0.25
# A node that answers with an error is up: what it refuses for longer than a stumble takes, it will go on refusing.
_STUMBLE_S: Final = 5.0
# Nodes hear of what is final with their blocks: of two on the same chain, one may hear a moment later.
_TAG_LAG_S: Final = 2.0
# The call itself failed in the EVM: that is the chain's answer. Any other error is the node's, and says nothing.
_FAILED: Final = frozenset({Refusal.REVERTED})
# A token may burn all gas that it is given, however much the node allows.
_FAILED_OR_EXHAUSTED: Final = _FAILED | {Refusal.OUT_OF_GAS}
# Source: EIP-1474, "requested resource not found": what anvil says of an orphan's hash.
_RESOURCE_NOT_FOUND: Final = -32001


def _selector(signature: str) -> bytes:
    return bytes(keccak(text=signature)[:4])


DECREASE: Final = _selector("decreaseLiquidity((uint256,uint128,uint256,uint256,uint256))")
COLLECT: Final = _selector("collect((uint256,address,uint128,uint128))")
TOTAL_SUPPLY: Final = _selector("totalSupply()")
TOKEN_BY_INDEX: Final = _selector("tokenByIndex(uint256)")
GET_POOL: Final = _selector("getPool(address,address,uint24)")


class BlockGone(RetryableError):
    """The node doesn't have the block, or no longer its state: it was orphaned meanwhile, or pruned."""


class TooManyPositions(PermanentError):
    """There are more positions than the limit allows."""


@dataclass(frozen=True, slots=True)
class TokenTruth:
    """An ERC-20 as it describes itself, made printable by the server's own rules."""

    address: Address
    symbol: str
    decimals: int | None


@dataclass(frozen=True, slots=True)
class PoolTruth:
    """A pool at a block; the growth globals are only there when the pool itself was asked for."""

    address: Address
    sqrt_price: int
    tick: int
    liquidity: int | None = None
    growth0: int | None = None
    growth1: int | None = None


@dataclass(frozen=True, slots=True)
class BlockTruth:
    """A block's header; the timestamp is in seconds."""

    number: int
    hash: str
    parent_hash: str
    timestamp: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionTruth:
    """A position at a block. Amounts are None where the static call reverted, which is then no truth.

    `owner` is for whom a staking contract holds it, None where the holder is the owner; `stakes` is how often it
    is staked there.
    """

    token_id: TokenId
    holder: Address
    nft: NftPosition
    pool: PoolTruth
    token0: TokenTruth
    token1: TokenTruth
    amounts: tuple[int, int] | None
    collectable: tuple[int, int] | None
    owner: Address | None = None
    stakes: int = 0


@dataclass(frozen=True, slots=True)
class _Call:
    to: Address
    data: bytes
    sender: Address | None = None


def _pair(result: bytes | None) -> tuple[int, int] | None:
    if result is None or len(result) < 64:
        return None
    return int.from_bytes(result[:32], "big"), int.from_bytes(result[32:64], "big")


def _words(*values: int) -> bytes:
    return b"".join(value.to_bytes(32, "big") for value in values)


class Truth:
    """Reads of one deployment. What never changes (pools, tokens) is asked once.

    Args:
        endpoint: The node.
        manager: NonfungiblePositionManager.
        factory: UniswapV3Factory.
        patience_s: How long a node that doesn't answer is asked again, in all.
    """

    def __init__(self, endpoint: Endpoint, manager: Address, factory: Address, *, patience_s: float = 60.0) -> None:
        self.calls = 0
        self._endpoint = endpoint
        self._manager = manager
        self._factory = factory
        self._patience_s = patience_s
        self._pools: dict[tuple[Address, Address, int], Address] = {}
        self._tokens: dict[Address, TokenTruth] = {}

    async def chain_id(self) -> int:
        """Return the node's chain id."""
        (answer,) = await self._send([("eth_chainId", [])])
        return int(answer, 16)

    async def require(self, block_hash: str) -> BlockTruth:
        """Return the block; raise BlockGone unless the node has it, as part of its chain."""
        (answer,) = await self._send([("eth_getBlockByHash", [block_hash, False])])
        if not isinstance(answer, dict):
            raise BlockGone(block_hash)
        return _block(answer)

    async def at_height(self, number: int) -> BlockTruth | None:
        """Return the block of a height on the node's chain, None above its head."""
        (answer,) = await self._send([("eth_getBlockByNumber", [hex(number), False])])
        return _block(answer) if isinstance(answer, dict) else None

    async def tagged(self, tag: str, at_least: int) -> BlockTruth | None:
        """Return the block that the node calls "safe" or "finalized"; None where it calls none so, or refuses to tell.

        A node may learn of it later than another: the height of `at_least` is waited for, for two seconds.
        """
        began = time.monotonic()
        while True:
            self.calls += 1
            try:
                (answer,) = await self._endpoint.send([("eth_getBlockByNumber", [tag, False])])
            except TransportError:
                answer = None
            if isinstance(answer, dict) and int(answer["number"], 16) >= at_least:
                return _block(answer)
            if time.monotonic() - began >= min(_TAG_LAG_S, self._patience_s):
                return _block(answer) if isinstance(answer, dict) else None
            await asyncio.sleep(_PAUSE_S)

    async def positions(self, token_ids: Iterable[TokenId], block_hash: str) -> dict[TokenId, PositionTruth | None]:
        """Return each position at a block, None for those that don't exist there.

        Raises:
            BlockGone: See there.
            ChainUnavailable: The node did not answer for too long, or only with errors that say nothing of the chain.
        """
        ids = list(dict.fromkeys(token_ids))
        manager = self._manager
        owners = await self._call([_Call(*owner_call(manager, token_id)) for token_id in ids], block_hash)
        stored = await self._call([_Call(*nft_call(manager, token_id)) for token_id in ids], block_hash)
        alive: dict[TokenId, tuple[Address, NftPosition]] = {}
        for token_id, owner, position in zip(ids, map(decode_address, owners), map(decode_nft, stored), strict=True):
            if owner is not None and position is not None:
                alive[token_id] = owner, position
        await self._learn([nft for _, nft in alive.values()], block_hash)
        pools = await self.pools(
            {self._pools[nft.token0, nft.token1, nft.fee_pips] for _, nft in alive.values()}, block_hash
        )
        calls: list[_Call] = []
        for token_id, (holder, nft) in alive.items():
            withdraw = DECREASE + _words(token_id, nft.liquidity, 0, 0, MAX_U256)
            collect = COLLECT + _words(token_id, int(holder, 16), MAX_U128, MAX_U128)
            calls += [_Call(manager, withdraw, holder), _Call(manager, collect, holder)]
        paid = [_pair(answer) for answer in await self._call(calls, block_hash)]
        result: dict[TokenId, PositionTruth | None] = dict.fromkeys(ids)
        for index, (token_id, (holder, nft)) in enumerate(alive.items()):
            result[token_id] = PositionTruth(
                token_id=token_id,
                holder=holder,
                nft=nft,
                pool=pools[self._pools[nft.token0, nft.token1, nft.fee_pips]],
                token0=self._tokens[nft.token0],
                token1=self._tokens[nft.token1],
                # Withdrawing nothing reverts ("NP"): there is nothing to pay.
                amounts=paid[2 * index] if nft.liquidity else (0, 0),
                collectable=paid[2 * index + 1],
            )
        return result

    async def pools(
        self, pools: Iterable[Address], block_hash: str, *, whole: bool = False
    ) -> dict[Address, PoolTruth]:
        """Return pools at a block; `whole` asks for liquidity and fee growth as well."""
        wanted = list(dict.fromkeys(pools))
        selectors = (SLOT0, LIQUIDITY, GROWTH0, GROWTH1) if whole else (SLOT0,)
        answers = iter(await self._call([_Call(pool, data) for pool in wanted for data in selectors], block_hash))
        result: dict[Address, PoolTruth] = {}
        for pool in wanted:
            sqrt_price, tick = decode_slot0(next(answers)) or (0, 0)
            result[pool] = PoolTruth(pool, sqrt_price, tick, *(decode_uint(next(answers)) for _ in selectors[1:]))
        return result

    async def holders(self, block_hash: str, limit: int) -> dict[TokenId, Address]:
        """Return the holder of every NFT that exists at a block.

        Raises:
            TooManyPositions: There are more than `limit`.
            BlockGone, ChainUnavailable: As in `positions`.
        """
        (supply,) = await self._call([_Call(self._manager, TOTAL_SUPPLY)], block_hash)
        count = decode_uint(supply)
        if count is None:
            await self.require(block_hash)
            raise PermanentError(f"there is no position manager at {self._manager} on this node's chain")
        if count > limit:
            raise TooManyPositions(
                f"the position manager has {count:,} positions and --limit is {limit:,}: raise it, or name owners"
            )
        found = await self._call(
            [_Call(self._manager, TOKEN_BY_INDEX + _words(index)) for index in range(count)], block_hash
        )
        ids = [TokenId(value) for value in map(decode_uint, found) if value is not None]
        owners = await self._call([_Call(*owner_call(self._manager, token_id)) for token_id in ids], block_hash)
        return {
            token_id: owner
            for token_id, owner in zip(ids, map(decode_address, owners), strict=True)
            if owner is not None
        }

    async def held_by(self, owners: Iterable[Address], block_hash: str) -> dict[Address, frozenset[TokenId]]:
        """Return the NFTs that each owner holds at a block."""
        wanted = list(dict.fromkeys(owners))
        balances = await self._call([_Call(*balance_call(self._manager, owner)) for owner in wanted], block_hash)
        places = [
            (owner, index)
            for owner, balance in zip(wanted, map(decode_uint, balances), strict=True)
            for index in range(balance or 0)
        ]
        found = await self._call(
            [_Call(*token_of_owner_call(self._manager, owner, index)) for owner, index in places], block_hash
        )
        held: dict[Address, set[TokenId]] = {owner: set() for owner in wanted}
        for (owner, _), token_id in zip(places, map(decode_uint, found), strict=True):
            if token_id is not None:
                held[owner].add(TokenId(token_id))
        return {owner: frozenset(ids) for owner, ids in held.items()}

    def tokens_of(self, pool: Address) -> tuple[TokenTruth, TokenTruth] | None:
        """Return the tokens of a pool that some position led to."""
        for (token0, token1, _), known in self._pools.items():
            if known == pool and token0 in self._tokens and token1 in self._tokens:
                return self._tokens[token0], self._tokens[token1]
        return None

    async def _learn(self, nfts: Sequence[NftPosition], block_hash: str) -> None:
        """Ask for the pools and tokens that are new."""
        keys = list({(nft.token0, nft.token1, nft.fee_pips) for nft in nfts} - self._pools.keys())
        calls = [
            _Call(self._factory, GET_POOL + _words(int(token0, 16), int(token1, 16), fee))
            for token0, token1, fee in keys
        ]
        for key, answer in zip(keys, await self._call(calls, block_hash), strict=True):
            pool = decode_address(answer)
            if pool is None or pool == ZERO_ADDRESS:
                await self.require(block_hash)
                raise PermanentError(
                    f"the factory {self._factory} knows no pool of {key}: is it the manager's factory?"
                )
            self._pools[key] = pool
        tokens = sorted({token for nft in nfts for token in (nft.token0, nft.token1)} - self._tokens.keys())
        symbols = await self._call([_Call(*symbol_call(token)) for token in tokens], block_hash, _FAILED_OR_EXHAUSTED)
        decimals = await self._call(
            [_Call(*decimals_call(token)) for token in tokens], block_hash, _FAILED_OR_EXHAUSTED
        )
        for token, symbol, digits in zip(tokens, symbols, decimals, strict=True):
            self._tokens[token] = TokenTruth(token, decode_symbol(token, symbol), decode_decimals(digits))

    async def ask(self, calls: Sequence[Call], block_hash: str) -> list[bytes | None]:
        """Return each static call's answer at a block, None where it reverted.

        Raises:
            BlockGone, ChainUnavailable: As in `positions`.
        """
        return await self._call([_Call(*call) for call in calls], block_hash)

    async def _call(
        self, calls: Sequence[_Call], block_hash: str, failed: frozenset[Refusal] = _FAILED
    ) -> list[bytes | None]:
        """Return each static call's answer at a block, None where it failed in the EVM, in one of these ways."""
        results: list[bytes | None] = []
        for start in range(0, len(calls), _BATCH):
            requests: list[tuple[str, list[Any]]] = []
            for call in calls[start : start + _BATCH]:
                transaction = {"to": call.to, "data": "0x" + call.data.hex()}
                if call.sender is not None:
                    transaction["from"] = call.sender
                requests.append(("eth_call", [transaction, {"blockHash": block_hash}]))
            for answer in await self._send(requests, failed):
                if isinstance(answer, RpcError):
                    if _is_unknown_block(answer):
                        raise BlockGone(block_hash) from answer
                    results.append(None)
                elif not isinstance(answer, str):
                    raise BlockGone(block_hash)
                else:
                    results.append(bytes.fromhex(answer[2:]))
        return results

    async def _send(
        self, requests: Sequence[tuple[str, list[Any]]], failed: frozenset[Refusal] = frozenset()
    ) -> list[Any]:
        """Send one batch, again and again while the node doesn't answer, up to the patience.

        Of error objects only those come back that are answers: an unknown block, and calls that failed as told.
        """
        began = time.monotonic()
        self.calls += len(requests)
        while True:
            try:
                answers = await self._endpoint.send(requests)
            except TransportError as error:
                if time.monotonic() - began >= self._patience_s:
                    text = f"the node was silent for {self._patience_s:g} s ({error}): is it running, is --rpc right?"
                    raise ChainUnavailable(text) from error
            else:
                refused = next((each for each in answers if _is_refused(each, failed)), None)
                if refused is None:
                    return answers
                if time.monotonic() - began >= min(_STUMBLE_S, self._patience_s):
                    text = (
                        f"could not verify: the node does not answer {requests[answers.index(refused)][0]} ({refused})"
                    )
                    raise ChainUnavailable(text) from refused
            await asyncio.sleep(_PAUSE_S)


def _block(answer: dict[str, Any]) -> BlockTruth:
    return BlockTruth(int(answer["number"], 16), answer["hash"], answer["parentHash"], int(answer["timestamp"], 16))


def _is_unknown_block(error: RpcError) -> bool:
    return error.is_unknown_block or error.code == _RESOURCE_NOT_FOUND


def _is_refused(answer: Any, failed: frozenset[Refusal]) -> bool:
    """Return whether it is an error that says nothing of the chain."""
    return isinstance(answer, RpcError) and answer.kind not in failed and not _is_unknown_block(answer)
