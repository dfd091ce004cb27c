"""Asks and answers over Redis; see `asks` for what they mean.

    {prefix}r:KEY  hash, expires. The answer: o (run), n(umber), h(ash), b(ody), a (when); the last ask:
                   m (run and block that it was of), w(hen), u(ntil when it is of interest)
    {prefix}asks   list: what no engine has taken yet, each a run and keys; the newest

Beside these two channels of pub/sub, `asked` and `answered`, say that there is something. What they say is nothing that
would be missed for good: an engine looks now and then, a gateway asks again.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import orjson

from ..domain.chain import Header
from ..domain.errors import PermanentError
from .asks import AHEAD_S, HOT_S, Answer
from .ports import Fenced
from .redis_link import RedisLink
from .redis_nodes import translated
from .scripts import Script

__all__ = ["RedisAsks"]

# After this an ask without an answer is made again by whoever still waits.
_MARK_S: Final = 1.0
# An answer that nobody renews is kept a little longer than the engine renews it: a chain may stand still.
_KEPT_S: Final = 2 * HOT_S
# Nothing beats here, so a line that died without a word looks like nobody who asks: after this it is taken anew. Until
# then, and while it is, both sides look now and then: an answer takes a second instead of milliseconds.
_SILENCE_S: Final = 15.0
_ASKED: Final = msgspec.msgpack.Decoder(list[str])

# ARGV: prefix, number, hash, ms of interest, ms of a mark, ms that a later block is waited for, ms kept, keys.
# Returns for each key {} or {n, h, b}.
_ASK: Final = Script("""
local P, number, hash = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local hot, lease, soon, kept = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local keys = {}
for i = 8, #ARGV do keys[#keys + 1] = P .. 'r:' .. ARGV[i] end
here(keys)
here({P .. 'asks'})
local owner = redis.call('GET', P .. 'owner')
local answer, wanted = {}, {owner}
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for i, key in ipairs(keys) do
  local found = {}
  if owner then
    local f = redis.call('HMGET', key, 'o', 'n', 'h', 'b', 'a', 'm', 'w', 'u')
    local since = f[7] and now - tonumber(f[7])
    local is_fresh = f[1] == owner and f[3] == hash
    -- The engine is a block further, and the gateway will be at once.
    local is_ahead = f[1] == owner and not is_fresh and tonumber(f[2]) > number and now - tonumber(f[5]) < soon
    local asks
    if is_fresh then
      asks = tonumber(f[8] or 0) - now < hot / 2
    elseif not is_ahead then
      asks = f[6] ~= owner .. hash or since >= lease or since < 0
    end
    if is_fresh or is_ahead then found = {f[2], f[3], f[4]} end
    if asks then
      local at, till = string.format('%.0f', now), string.format('%.0f', now + hot)
      redis.call('HSET', key, 'm', owner .. hash, 'w', at, 'u', till)
      redis.call('PEXPIRE', key, kept)
      wanted[#wanted + 1] = ARGV[i + 7]
    end
  end
  answer[#answer + 1] = found
end
if wanted[2] then
  redis.call('RPUSH', P .. 'asks', cmsgpack.pack(wanted))
  -- So many, some hundred keys each, wait for an engine; what is pushed out is asked again.
  redis.call('LTRIM', P .. 'asks', -200, -1)
  redis.call('SPUBLISH', P .. 'asked', '')
end
return answer
""")

# ARGV: prefix, token. Takes what is asked of this run; what was asked of an earlier one will be asked again.
_TAKE: Final = Script("""
local P = ARGV[1]
here({P .. 'asks'})
if redis.call('GET', P .. 'owner') ~= ARGV[2] then return {} end
local asked = redis.call('LRANGE', P .. 'asks', 0, -1)
redis.call('DEL', P .. 'asks')
return asked
""")

# ARGV: prefix, token, number, hash, ms kept; then key and body of each.
_ANSWER: Final = Script("""
local P, token = ARGV[1], ARGV[2]
local keys = {}
for i = 6, #ARGV, 2 do keys[#keys + 1] = P .. 'r:' .. ARGV[i] end
here(keys)
if redis.call('GET', P .. 'owner') ~= token then return 'fenced' end
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
for i, key in ipairs(keys) do
  redis.call('HSET', key, 'o', token, 'n', ARGV[3], 'h', ARGV[4], 'b', ARGV[2 * i + 5], 'a', now)
  redis.call('PEXPIRE', key, ARGV[5])
end
redis.call('SPUBLISH', P .. 'answered', '')
return 'ok'
""")


class RedisAsks:
    """One engine's asks and answers.

    Args:
        link: To that engine.
    """

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def ask(self, head: Header, keys: Sequence[str]) -> list[Answer | None]:
        """Return what is there; see the port."""
        times = [int(seconds * 1000) for seconds in (HOT_S, _MARK_S, AHEAD_S, _KEPT_S)]
        answers = await self._link.run(_ASK, head.number, head.hash, *times, *keys)
        try:
            return [Answer(int(one[0]), one[1].decode(), orjson.loads(one[2])) if one else None for one in answers]
        except ValueError as error:
            raise PermanentError("redis holds an answer that is not readable") from error

    async def answered(self) -> AsyncIterator[None]:
        """Yield whenever something was answered; see the port."""
        async for _ in self._link.listen("answered", _SILENCE_S):
            yield None

    async def asked(self) -> AsyncIterator[None]:
        """Yield whenever something was asked; see the port."""
        async for _ in self._link.listen("asked", _SILENCE_S):
            yield None

    async def take(self, token: str) -> list[str]:
        """Return what is asked; see the port."""
        asked: dict[str, None] = {}
        parts = await self._link.run(_TAKE, token)
        async with translated():
            for part in parts:
                run, *keys = _ASKED.decode(part)
                if run == token:
                    asked.update(dict.fromkeys(keys))
        return list(asked)

    async def answer(self, token: str, head: Header, bodies: Mapping[str, bytes]) -> None:
        """Put answers in place; see the port."""
        args: list[Any] = [token, head.number, head.hash, int(_KEPT_S * 1000)]
        for key, body in bodies.items():
            args += (key, body)
        if await self._link.run(_ANSWER, *args) != b"ok":
            raise Fenced("another engine is in charge")
