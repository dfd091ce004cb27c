"""Addresses as people see them, as calls need them, and as factories compute them. Pure."""

from functools import lru_cache
from typing import Final

from eth_utils.address import is_checksum_formatted_address, to_checksum_address
from eth_utils.crypto import keccak

from ..domain.errors import ClientError
from ..domain.ids import Address

__all__ = ["ZERO_ADDRESS", "checksum", "create2_pool", "parse_address", "raw"]

ZERO_ADDRESS: Final = Address("0x" + "0" * 40)


@lru_cache(maxsize=65_536)  # A keccak costs 5 µs; owners and tokens repeat with every position.
def checksum(address: Address) -> str:
    """Return the EIP-55 spelling of an address."""
    return str(to_checksum_address(address))


@lru_cache(maxsize=65_536)
def raw(address: Address) -> bytes:
    """Return the 20 bytes of an address."""
    return bytes.fromhex(address[2:])


def parse_address(text: str, *, what: str = "address") -> Address:
    """Return an address given in any case.

    Raises:
        ClientError: Not 0x and 40 hex digits, or mixed case with a wrong EIP-55 checksum (a typing error).
    """
    body = text[2:]
    if text[:2] not in ("0x", "0X") or len(body) != 40 or not all(c in "0123456789abcdefABCDEF" for c in body):
        raise ClientError("bad_request", f"{what} must be 0x followed by 40 hex digits, got {text[:64]!r}")
    address = Address("0x" + body.lower())
    if is_checksum_formatted_address("0x" + body) and checksum(address) != "0x" + body:
        raise ClientError(
            "bad_request",
            f"{what} {text} has a wrong EIP-55 checksum: check it for a typing error, or send it in lower case",
        )
    return address


def create2_pool(deployer: Address, init_code_hash: bytes, token_a: Address, token_b: Address, fee: int) -> Address:
    """Return the address at which a factory deploys a pool, without asking the chain.

    Source: Uniswap/v3-periphery contracts/libraries/PoolAddress.sol, computeAddress.
    """
    token0, token1 = sorted((token_a, token_b))
    salt = keccak(b"\0" * 12 + raw(token0) + b"\0" * 12 + raw(token1) + fee.to_bytes(32, "big"))
    return Address("0x" + keccak(b"\xff" + raw(deployer) + salt + init_code_hash)[12:].hex())
