"""Tokens as they are found in the wild and break a naive reader; for tests.

bytes32        name and symbol are one word, not a string
no-symbol      symbol() reverts
no-decimals    decimals() reverts
huge-decimals  decimals() answers 2^256-1
hostile        markup, a NUL, an escape sequence and a right-to-left override in the symbol
fee            takes a part of each transfer; no fee until `Lab.set_transfer_fee`, because a pool refuses
               payments that arrive short
rebasing       all balances grow or shrink together: `Lab.rebase`
"""

from __future__ import annotations

from typing import Final

from eth_abi.abi import encode

from .actions import MAX_U256, Tx
from .contracts import Contracts
from .deployment import Deployment, Token
from .session import Session

__all__ = ["HOSTILE_SYMBOL", "create_odd_tokens"]

HOSTILE_SYMBOL: Final = "<img src=x onerror=alert(1)>\u202e\x00\x1b[31m&\"'"
_EACH: Final = 10**30


async def create_odd_tokens(session: Session, contracts: Contracts, deployment: Deployment) -> dict[str, Token]:
    """Deploy them, give every account and the actor 10^30 units, approve the spenders, and mine."""
    plain, hostile = encode(["string"], ["ODD"]), encode(["string"], [HOSTILE_SYMBOL])
    six, eighteen, huge = (encode(["uint256"], [n]) for n in (6, 18, MAX_U256))
    odd = contracts.odd_token
    # The init code and the decimals that this chain's own arithmetic should assume.
    creations = {
        "bytes32": (odd.creation(b"Maker".ljust(32, b"\0"), b"MKR".ljust(32, b"\0"), eighteen), 18),
        "no-symbol": (odd.creation(plain, b"", six), 6),
        "no-decimals": (odd.creation(plain, plain, b""), 18),
        "huge-decimals": (odd.creation(plain, plain, huge), 18),
        "hostile": (odd.creation(hostile, hostile, eighteen), 18),
        "fee": (contracts.fee_token.creation("Fee on transfer", "FEE", 18), 18),
        "rebasing": (contracts.rebasing_token.creation("Rebasing", "stREB", 18), 18),
    }
    house = deployment.house
    sent = {
        kind: await session.send(Tx(f"deploy {kind} token", house, None, code)) for kind, (code, _) in creations.items()
    }
    created = {r["transactionHash"]: r["contractAddress"] for r in (await session.mine()).receipts}
    tokens = {kind: Token(kind, created[tx_hash].lower(), creations[kind][1], 1_00) for kind, tx_hash in sent.items()}
    people = [house, deployment.trader, deployment.stranger, *deployment.owners]
    for token in tokens.values():
        give = contracts.token.call("mintMany", [*people, deployment.actor], _EACH)
        await session.send(Tx(f"mint {token.symbol}", house, token.address, give))
        for person in people:
            for spender in (deployment.position_manager, deployment.router):
                approve = contracts.token.call("approve", spender, MAX_U256)
                await session.send(Tx("approve", person, token.address, approve))
    await session.mine()
    return tokens
