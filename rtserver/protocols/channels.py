"""Channel names: parsed once, then spelled one way only. Decides which names exist, not who may see them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from ..domain.errors import ClientError
from ..domain.ids import Address, ChainId, TokenId
from .addresses import checksum, parse_address

__all__ = [
    "Channel",
    "HeadChannel",
    "OwnerChannel",
    "PoolChannel",
    "PositionChannel",
    "PricesChannel",
    "RewardsChannel",
    "parse_channel",
]

_FORMS: Final = (
    "position:{chainId}:{protocol}:{tokenId}, owner:{chainId}:{address}, rewards:{chainId}:{address}, "
    "pool:{chainId}:{address}, prices:{chainId}, head:{chainId}"
)
# Token ids are uint256; anything longer is not a number that a chain knows.
_MAX_DIGITS: Final = 78


@dataclass(frozen=True, slots=True)
class PositionChannel:
    """One position."""

    chain_id: ChainId
    protocol: str
    token_id: TokenId

    @property
    def name(self) -> str:
        """Return the one spelling."""
        return f"position:{self.chain_id}:{self.protocol}:{self.token_id}"


@dataclass(frozen=True, slots=True)
class OwnerChannel:
    """All positions of an owner, over all protocols of a chain."""

    chain_id: ChainId
    owner: Address

    @property
    def name(self) -> str:
        """Return the one spelling."""
        return f"owner:{self.chain_id}:{checksum(self.owner)}"


@dataclass(frozen=True, slots=True)
class RewardsChannel:
    """What an owner can claim from staking contracts, over all protocols of a chain."""

    chain_id: ChainId
    owner: Address

    @property
    def name(self) -> str:
        """Return the one spelling."""
        return f"rewards:{self.chain_id}:{checksum(self.owner)}"


@dataclass(frozen=True, slots=True)
class PoolChannel:
    """One pool."""

    chain_id: ChainId
    pool: Address

    @property
    def name(self) -> str:
        """Return the one spelling."""
        return f"pool:{self.chain_id}:{checksum(self.pool)}"


@dataclass(frozen=True, slots=True)
class PricesChannel:
    """The prices of a chain's watched tokens."""

    chain_id: ChainId

    @property
    def name(self) -> str:
        """Return the one spelling."""
        return f"prices:{self.chain_id}"


@dataclass(frozen=True, slots=True)
class HeadChannel:
    """A chain's head."""

    chain_id: ChainId

    @property
    def name(self) -> str:
        """Return the one spelling."""
        return f"head:{self.chain_id}"


Channel: TypeAlias = PositionChannel | OwnerChannel | RewardsChannel | PoolChannel | PricesChannel | HeadChannel


def _number(text: str, what: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_DIGITS or int(text) >= 1 << 256:
        raise ClientError("bad_channel", f"{what} must be a decimal number below 2^256, got {text[:80]!r}")
    return int(text)


def parse_channel(text: str, known: Mapping[int, frozenset[str]]) -> Channel:
    """Return the channel that a name means.

    Args:
        text: The name as a client wrote it; addresses in any case.
        known: The protocols served, by chain id.

    Raises:
        ClientError: `bad_channel`, saying what is wrong and what would be right.
    """
    kind, _, rest = text[:256].partition(":")
    parts = rest.split(":")
    sizes = {"position": 3, "owner": 2, "rewards": 2, "pool": 2, "prices": 1, "head": 1}
    if sizes.get(kind) != len(parts):
        raise ClientError("bad_channel", f"no channel {text[:80]!r}; channels are {_FORMS}")
    chain_id = ChainId(_number(parts[0], "chainId"))
    protocols = known.get(chain_id)
    if protocols is None:
        served = ", ".join(map(str, sorted(known)))
        raise ClientError("bad_channel", f"chain {chain_id} is not served here; served are {served}")
    try:
        if kind == "position":
            if parts[1] not in protocols:
                served = ", ".join(sorted(protocols))
                raise ClientError(
                    "bad_channel", f"protocol {parts[1][:40]!r} is not served on chain {chain_id}; served are {served}"
                )
            return PositionChannel(chain_id, parts[1], TokenId(_number(parts[2], "tokenId")))
        if kind == "owner":
            return OwnerChannel(chain_id, parse_address(parts[1], what="owner"))
        if kind == "rewards":
            return RewardsChannel(chain_id, parse_address(parts[1], what="owner"))
        if kind == "pool":
            return PoolChannel(chain_id, parse_address(parts[1], what="pool"))
    except ClientError as error:
        raise ClientError("bad_channel", error.message) from error
    return PricesChannel(chain_id) if kind == "prices" else HeadChannel(chain_id)
