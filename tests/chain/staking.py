"""The real v3-staker in a test's hands: what can be done there, a seeded crowd that does it, and its own answers."""

from __future__ import annotations

import random
from typing import Any

from eth_abi.abi import decode, encode
from eth_utils.crypto import keccak

from rtserver.chain.rpc import RpcError
from rtserver.demo.actions import Tx
from rtserver.demo.deployment import Incentive
from rtserver.demo.lab import Lab
from rtserver.domain.diff import State

from .world import KIND, World

KEY = "(address,address,uint256,uint256,address)"


class Staker:
    """Transactions to the staker, and every incentive made through here."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.at = lab.deployment.staker
        self.contract = lab.contracts.staker
        self.incentives: list[Incentive] = list(lab.deployment.incentives)

    def _tx(self, label: str, sender: str, function: str, *args: Any) -> Tx:
        return Tx(label, sender, self.at, self.contract.call(function, *args))

    async def create(self, token: str, pool: str, *, start: int, end: int, amount: int, by: str = "") -> Incentive:
        """Send the creation of an incentive; sending the same again adds to it."""
        house = by or self.lab.deployment.house
        incentive = Incentive(token, pool, start, end, house)
        await self.lab.send(self._tx("create", house, "createIncentive", incentive.key, amount))
        if incentive not in self.incentives:
            self.incentives.append(incentive)
        return incentive

    async def deposit(self, owner: str, token_id: int, *incentives: Incentive) -> str:
        """Send an NFT there, staking it in no, one or several incentives at once."""
        data = b""
        if len(incentives) == 1:
            data = encode([KEY], [incentives[0].key])
        elif incentives:
            data = encode([f"{KEY}[]"], [[incentive.key for incentive in incentives]])
        call = self.lab.contracts.position_manager.call(
            "safeTransferFrom(address,address,uint256,bytes)", owner, self.at, token_id, data
        )
        return await self.lab.send(Tx(f"deposit #{token_id}", owner, self.lab.deployment.position_manager, call))

    async def stake(self, owner: str, token_id: int, incentive: Incentive) -> str:
        return await self.lab.send(self._tx("stake", owner, "stakeToken", incentive.key, token_id))

    async def unstake(self, sender: str, token_id: int, incentive: Incentive) -> str:
        return await self.lab.send(self._tx("unstake", sender, "unstakeToken", incentive.key, token_id))

    async def withdraw(self, owner: str, token_id: int, to: str = "") -> str:
        return await self.lab.send(self._tx("withdraw", owner, "withdrawToken", token_id, to or owner, b""))

    async def give(self, owner: str, token_id: int, to: str) -> str:
        return await self.lab.send(self._tx("give", owner, "transferDeposit", token_id, to))

    async def claim(self, owner: str, token: str, amount: int = 0, to: str = "") -> str:
        return await self.lab.send(self._tx("claim", owner, "claimReward", token, to or owner, amount))

    async def end(self, incentive: Incentive) -> str:
        return await self.lab.send(self._tx("end", self.lab.deployment.stranger, "endIncentive", incentive.key))

    def incentive_id(self, incentive: Incentive) -> str:
        return "0x" + keccak(encode([KEY], [incentive.key])).hex()

    # --- the contract's own answers -------------------------------------------------------------------

    def call(self, function: str, *args: Any, block: str) -> tuple[str, list[Any]]:
        data = "0x" + self.contract.call(function, *args).hex()
        return "eth_call", [{"to": self.at, "data": data}, {"blockHash": block}]


class Crowd:
    """People who deposit, stake, unstake, claim, give away and withdraw, from a seed. Some of it fails: no matter."""

    def __init__(self, staker: Staker, seed: int) -> None:
        self.staker = staker
        self._rng = random.Random(seed)
        # Who deposited what and where it is staked, as far as it was meant; the chain may have decided otherwise.
        self._deposited: dict[int, str] = {}

    async def act(self) -> None:
        """Send this block's transactions."""
        rng, staker, lab = self._rng, self.staker, self.staker.lab
        now = lab.head.timestamp
        # The market unstakes by itself, and only from these pools' first incentives.
        pools = {incentive.pool for incentive in lab.deployment.incentives}
        for _ in range(rng.randint(0, 3)):
            choice = rng.random()
            held = [
                nft for nft in lab.book.nfts.values() if nft.owner in lab.owners and nft.liquidity and nft.pool in pools
            ]
            inside = [i for i in self._deposited if i in lab.book.nfts and lab.book.nfts[i].owner == staker.at]
            if choice < 0.12:
                pool = rng.choice(sorted(pools))
                token = rng.choice([t.address for t in lab.deployment.tokens.values()])
                start = now + rng.randint(20, 60)
                await staker.create(
                    token, pool, start=start, end=start + rng.choice((60, 200, 10_000)),
                    amount=rng.randint(1, 10**rng.randint(1, 24)),
                )  # fmt: skip
            elif choice < 0.50 and held:
                nft = rng.choice(held)
                fitting = [i for i in staker.incentives if i.pool == nft.pool and i.start_time <= now < i.end_time]
                count = rng.randint(0 if rng.random() < 0.2 else min(1, len(fitting)), len(fitting))
                await staker.deposit(nft.owner, nft.token_id, *rng.sample(fitting, count))
                self._deposited[nft.token_id] = nft.owner
            elif choice < 0.55:
                incentive = rng.choice(staker.incentives)
                await staker.end(incentive)
            elif choice < 0.63:
                owner = rng.choice(lab.owners)
                token = rng.choice(staker.incentives).reward_token
                await staker.claim(owner, token, rng.choice((0, rng.randint(1, 10**18))), rng.choice(lab.owners))
            elif inside:
                token_id = rng.choice(inside)
                owner, pool_address = self._deposited[token_id], lab.book.nfts[token_id].pool
                fitting = [incentive for incentive in staker.incentives if incentive.pool == pool_address]
                if choice < 0.75 and fitting:
                    await staker.stake(owner, token_id, rng.choice(fitting))
                elif choice < 0.88 and fitting:
                    await staker.unstake(owner, token_id, rng.choice(fitting))
                elif choice < 0.93:
                    to = rng.choice(lab.owners)
                    await staker.give(owner, token_id, to)
                    self._deposited[token_id] = to
                else:
                    await staker.withdraw(owner, token_id, rng.choice((owner, rng.choice(lab.owners))))


async def assert_staking(world: World, staker: Staker, block: str | None = None) -> tuple[int, int]:
    """Compare owners, stakes and every reward with the staker's answers at a block.

    Returns:
        How many rewards were compared, and how many of them were more than nothing.
    """
    block = block or world.keeper.head
    lab = world.lab
    ids = sorted(lab.book.nfts)
    holders = await world.batch(
        [world._call(bytes.fromhex("6352211e"), encode(["uint256"], [token_id]), block) for token_id in ids]
    )
    deposits = await world.batch([staker.call("deposits", token_id, block=block) for token_id in ids])
    owner_of: dict[int, str] = {}
    stakes_of: dict[int, int] = {}
    for token_id, holder, deposit in zip(ids, holders, deposits, strict=True):
        if isinstance(holder, RpcError):
            continue
        (owner,) = decode(["address"], bytes.fromhex(holder[2:]))
        depositor, stakes = decode(["address", "uint48"], bytes.fromhex(deposit[2:])[:64])
        if owner == staker.at and int(depositor, 16):
            owner = depositor
        owner_of[token_id] = owner
        stakes_of[token_id] = stakes
    for name, state in world.keeper.states.items():
        if name.startswith("owner:"):
            owner = name.rpartition(":")[2].lower()
            held = {f"{KIND}:{token_id}" for token_id, holder in owner_of.items() if holder == owner}
            assert set(state) == held, name
    keys = {staker.incentive_id(incentive): incentive for incentive in staker.incentives}
    asked, requests = [], []
    for view in world.positions():
        token_id = int(view["tokenId"])
        assert view["owner"].lower() == owner_of[token_id], token_id
        assert view["isStaked"] is (stakes_of[token_id] > 0), token_id
        if not stakes_of[token_id]:
            assert view["rewards"] is None
            continue
        assert view["rewards"] is not None, f"{token_id} is staked and says no rewards at {block}"
        places = view["rewards"]["places"]
        assert len(places) == stakes_of[token_id]
        for place in places:
            asked.append((token_id, place))
            requests.append(staker.call("getRewardInfo", keys[place["incentive"]].key, token_id, block=block))
    compared = positive = 0
    for (token_id, place), answer in zip(asked, await world.batch(requests), strict=True):
        if isinstance(answer, RpcError):
            assert place["amount"] is None, (token_id, place, answer)
            continue
        amount, _ = decode(["uint256", "uint160"], bytes.fromhex(answer[2:]))
        assert place["amount"] == str(amount), (token_id, place, amount, block)
        compared += 1
        positive += amount > 0
    await _assert_claims(world, staker, block)
    return compared, positive


async def _assert_claims(world: World, staker: Staker, block: str) -> None:
    """Compare what owners can claim, in every token that was ever a reward."""
    tokens = sorted({incentive.reward_token for incentive in staker.incentives})
    for name, state in world.keeper.states.items():
        if not name.startswith("rewards:"):
            continue
        owner = name.rpartition(":")[2]
        answers = await world.batch([staker.call("rewards", token, owner, block=block) for token in tokens])
        truth = {token: int(answer, 16) for token, answer in zip(tokens, answers, strict=True)}
        views: list[dict[str, Any]] = list(state.values())
        served = {view["token"]["address"].lower(): int(view["amount"]) for view in views}
        assert served == {token: amount for token, amount in truth.items() if amount}, (name, block)


def without_as_of(states: dict[str, State]) -> dict[str, Any]:
    """Return states without the time of the last push of rewards: that depends on when one began to listen."""
    return {
        name: {
            key: {**view, "rewards": view["rewards"]["places"]} if view.get("rewards") else view  # type: ignore[index,call-overload]
            for key, view in state.items()
        }
        for name, state in states.items()
    }
