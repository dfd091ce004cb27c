"""Reading the whole book from the chain, for when folding logs is not enough: at the start, after a reorg."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from .book import Book, Nft, PoolState
from .contracts import Contract, Contracts
from .deployment import Deployment, Pool
from .session import Session

__all__ = ["read_book"]

# Answers of 12 words each: half a megabyte a request.
_CALLS_PER_BATCH: Final = 400
# One call of a batch: the contract, its address, the function, its arguments.
_Call = tuple[Contract, str, str, tuple[object, ...]]


async def read_book(
    session: Session, contracts: Contracts, deployment: Deployment, pools: Sequence[Pool], block: str
) -> Book:
    """Return every NFT and pool price as the contracts state them at a block hash."""
    book = Book(deployment.position_manager, deployment.staker)
    manager, address = contracts.position_manager, deployment.position_manager

    def of_manager(function: str, *args: object) -> _Call:
        return manager, address, function, args

    states = await _read(session, [(contracts.pool, p.address, "slot0", ()) for p in pools], block)
    book.pools = {p.address: PoolState(s[0], s[1]) for p, s in zip(pools, states, strict=True) if s and s[0]}
    by_key = {(p.token0.address, p.token1.address, p.fee_pips): p.address for p in pools}
    ((supply,),) = await _read(session, [of_manager("totalSupply")], block)
    ids = [t[0] for t in await _read(session, [of_manager("tokenByIndex", i) for i in range(supply)], block)]
    holders = await _read(session, [of_manager("ownerOf", i) for i in ids], block)
    positions = await _read(session, [of_manager("positions", i) for i in ids], block)
    for token_id, (owner,), fields in zip(ids, holders, positions, strict=True):
        if (pool := by_key.get((fields[2], fields[3], fields[4]))) is not None:
            book.nfts[token_id] = Nft(token_id, owner, pool, fields[5], fields[6], fields[7])
    staked = [i for i, (owner,) in zip(ids, holders, strict=True) if owner == deployment.staker]
    deposits = await _read(session, [(contracts.staker, deployment.staker, "deposits", (i,)) for i in staked], block)
    book.depositors = {i: deposit[0] for i, deposit in zip(staked, deposits, strict=True)}
    return book


async def _read(session: Session, calls: Sequence[_Call], block: str) -> list[tuple[Any, ...]]:
    """Return each call's values; an empty tuple where there is no contract yet."""
    answers: list[tuple[Any, ...]] = []
    for start in range(0, len(calls), _CALLS_PER_BATCH):
        part = calls[start : start + _CALLS_PER_BATCH]
        coders = [(contract.functions[function], to, args) for contract, to, function, args in part]
        raw = await session.node.client.batch(
            [
                (
                    "eth_call",
                    ({"to": to, "data": "0x" + coder.encode(*args).hex()}, {"blockHash": block}),
                )
                for coder, to, args in coders
            ]
        )
        answers += [
            coder.decode(bytes.fromhex(answer[2:])) if answer != "0x" else ()
            for (coder, _, _), answer in zip(coders, raw, strict=True)
        ]
    return answers
