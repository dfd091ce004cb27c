"""What runs inside Redis, in one piece each. Nothing here decides what a channel is.

All keys of a chain begin with one prefix that holds its hash tag, so they are on one node, and a script makes their
names itself: a block changes thousands. Every script that writes what an engine writes compares the token in `owner`
first.

On a Cluster a script is called with two keys instead of one. It then makes sure before all else that every key that
it is about to need is on this node: while a slot moves its keys are here and there, each command of a script sees only
what is here, and one that fails would leave behind what those before it wrote. Until the slot has moved, such a call is
refused as a whole, and made again.

    {prefix}lease      holder, expires
    {prefix}owner      token of the newest generation; never expires
    {prefix}head       hash: run, step, complete, header, at (when it became that, ms by Redis' clock)
    {prefix}channels   set of the channels that are there
    {prefix}s:CHANNEL  hash: the newest snapshot: e(poch), q (seq), t(ag), a(t), b(ody)
    {prefix}h:CHANNEL  stream: the history; ids are SEQ-0, field e is the entry
    {prefix}gateways   hash: gateway → version of its wishes
    {prefix}alive      sorted set: gateway → when its wishes expire, ms by Redis' clock
    {prefix}w:GATEWAY  set: its wishes
    {prefix}counts     hash: channel → how many gateways wish for it
    {prefix}changes    stream: - what nobody wishes for any more, + what somebody began to wish for
"""

from hashlib import sha1
from typing import Final

__all__ = [
    "ACQUIRE", "CLOSE", "INTERESTS", "LEAVE", "PUBLISH", "READ", "RELEASE", "RENEW", "WIPE", "WISH", "Script",
]  # fmt: skip

# `here` ends the script where a key is not on this node: a command with several keys is refused by a node that lacks
# one of them while their slot moves, and at no other time. 1,000 at once: Lua's stack ends at 8,000.
_HERE: Final = """
local function here(keys)
  if not KEYS[2] then return end
  for i = 1, #keys, 1000 do
    redis.call('EXISTS', KEYS[1], unpack(keys, i, math.min(i + 999, #keys)))
  end
end
"""


class Script:
    """A script, with `here`, and the name that Redis knows it by."""

    def __init__(self, text: str) -> None:
        self.text: Final = _HERE + text
        self.sha: Final = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


# What WISH counts, so that nobody has to look at each gateway: one that was silent for too long is buried by the next
# who looks, and takes its wishes along. 100 at once, with what they wished for, hold Redis up for some milliseconds.
_COUNTED: Final = """
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function drop(P, channel, minus)
  if redis.call('HINCRBY', P .. 'counts', channel, -1) <= 0 then
    redis.call('HDEL', P .. 'counts', channel)
    minus[#minus + 1] = channel
  end
end
local function forget(P, gateway)
  local minus = {}
  for _, channel in ipairs(redis.call('SMEMBERS', P .. 'w:' .. gateway)) do drop(P, channel, minus) end
  redis.call('DEL', P .. 'w:' .. gateway)
  redis.call('HDEL', P .. 'gateways', gateway)
  redis.call('ZREM', P .. 'alive', gateway)
  return minus
end
local function note(P, minus, plus)
  if minus[1] then redis.call('XADD', P .. 'changes', 'MAXLEN', '~', 16384, '*', '-', cmsgpack.pack(minus)) end
  if plus[1] then redis.call('XADD', P .. 'changes', 'MAXLEN', '~', 16384, '*', '+', cmsgpack.pack(plus)) end
end
local function bury(P)
  local dead = redis.call('ZRANGEBYSCORE', P .. 'alive', '-inf', string.format('%.0f', clock()), 'LIMIT', 0, 100)
  local keys = {}
  for i, gateway in ipairs(dead) do keys[i] = P .. 'w:' .. gateway end
  here(keys)
  for _, gateway in ipairs(dead) do note(P, forget(P, gateway), {}) end
end
"""

# ARGV: prefix, holder, ttl. A generation is at least the clock: also over an emptied Redis it only grows.
# A lease runs out as well where Redis was away itself. So whoever had it may come back for a third of its time more,
# from when another one first asks: a new run is a snapshot for everyone. One that was given back is free (vacant 0).
ACQUIRE: Final = Script("""
local P = ARGV[1]
here({P .. 'lease', P .. 'head'})
local held = redis.call('GET', P .. 'lease')
if held and held ~= ARGV[2] then return false end
local t = redis.call('TIME')
local generation = t[1] * 1000 + math.floor(t[2] / 1000)
local before = redis.call('GET', P .. 'owner')
if before and not held and string.match(before, '%-(.*)$') ~= ARGV[2] then
  local since = redis.call('HGET', P .. 'head', 'vacant')
  if not since then redis.call('HSET', P .. 'head', 'vacant', string.format('%.0f', generation)) end
  if not since or generation - tonumber(since) < tonumber(ARGV[3]) / 3 then return false end
end
redis.call('HDEL', P .. 'head', 'vacant')
if before then generation = math.max(generation, tonumber(string.match(before, '^%d+')) + 1) end
local token = string.format('%.0f', generation) .. '-' .. ARGV[2]
redis.call('SET', P .. 'owner', token)
redis.call('SET', P .. 'lease', ARGV[2], 'PX', ARGV[3])
return token
""")

# ARGV: prefix, token, holder, ttl, the newest step that was answered. A lease that ran out while nobody else took it is
# the same generation's still.
RENEW: Final = Script("""
local P = ARGV[1]
here({P .. 'lease', P .. 'head'})
if redis.call('GET', P .. 'owner') ~= ARGV[2] then return 0 end
local head = redis.call('HMGET', P .. 'head', 'run', 'step')
local written = tonumber(ARGV[5])
if written > 0 and (head[1] ~= ARGV[2] or tonumber(head[2]) < written) then return 0 end
redis.call('SET', P .. 'lease', ARGV[3], 'PX', ARGV[4])
redis.call('HDEL', P .. 'head', 'vacant')
-- An empty list, so that whoever listens for wishes hears that the line lives.
redis.call('SPUBLISH', P .. 'wishes', '\\144')
if head[1] then
  redis.call('SPUBLISH', P .. 'steps', cmsgpack.pack({head[1], head[2], 'beat', '', '', '', '', '0', '0'}))
end
return 1
""")

# ARGV: prefix, token.
RELEASE: Final = Script("""
local P = ARGV[1]
here({P .. 'lease', P .. 'head'})
if redis.call('GET', P .. 'owner') ~= ARGV[2] then return 0 end
redis.call('HSET', P .. 'head', 'vacant', '0')
return redis.call('DEL', P .. 'lease')
""")

# ARGV: prefix, token, number, kind, header, age, rollback, refused, entries, snapshots; then for each entry
# channel, seq, oldest seq to keep, text; then for each snapshot channel, opened, epoch, seq, tag, at, body.
# kind holds b (begins the run), c (complete).
PUBLISH: Final = Script("""
local P, token, number, kind = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if redis.call('GET', P .. 'owner') ~= token then return 'fenced' end
local head = redis.call('HMGET', P .. 'head', 'run', 'step')
if head[1] == token and head[2] == number then return 'taken' end
local begins = string.find(kind, 'b')
if begins then
  if head[1] == token then return 'lost' end
elseif head[1] ~= token or tonumber(head[2]) ~= number - 1 then
  return 'lost'
end
local entries, snapshots = tonumber(ARGV[9]), tonumber(ARGV[10])
local before = {}
if begins then before = redis.call('SMEMBERS', P .. 'channels') end
if KEYS[2] then
  -- Nothing has been written yet.
  local keys = {P .. 'channels'}
  for _, channel in ipairs(before) do
    keys[#keys + 1] = P .. 's:' .. channel
    keys[#keys + 1] = P .. 'h:' .. channel
  end
  for i = 11, 10 + 4 * entries, 4 do keys[#keys + 1] = P .. 'h:' .. ARGV[i] end
  for i = 11 + 4 * entries, #ARGV, 7 do
    keys[#keys + 1] = P .. 's:' .. ARGV[i]
    keys[#keys + 1] = P .. 'h:' .. ARGV[i]
  end
  here(keys)
end
for _, channel in ipairs(before) do
  redis.call('UNLINK', P .. 's:' .. channel, P .. 'h:' .. channel)
end
if begins then redis.call('DEL', P .. 'channels') end
local opened, told = {}, {}
local i = 11
for _ = 1, entries do
  redis.call('XADD', P .. 'h:' .. ARGV[i], 'MINID', '=', ARGV[i + 2] .. '-0', ARGV[i + 1] .. '-0', 'e', ARGV[i + 3])
  told[#told + 1] = ARGV[i]
  told[#told + 1] = ARGV[i + 3]
  i = i + 4
end
for _ = 1, snapshots do
  if ARGV[i + 1] == '1' then
    redis.call('DEL', P .. 'h:' .. ARGV[i])
    redis.call('SADD', P .. 'channels', ARGV[i])
    opened[#opened + 1] = ARGV[i]
  end
  redis.call('HSET', P .. 's:' .. ARGV[i], 'e', ARGV[i + 2], 'q', ARGV[i + 3], 't', ARGV[i + 4], 'a', ARGV[i + 5],
    'b', ARGV[i + 6])
  i = i + 7
end
local t = redis.call('TIME')
local complete = '0'
if string.find(kind, 'c') then complete = '1' end
redis.call('HSET', P .. 'head', 'run', token, 'step', number, 'complete', complete, 'header', ARGV[5],
  'at', string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000) - tonumber(ARGV[6])))
local message = {token, number, kind, ARGV[5], ARGV[6], ARGV[7], ARGV[8], tostring(#opened), tostring(entries)}
for _, channel in ipairs(opened) do message[#message + 1] = channel end
for _, part in ipairs(told) do message[#message + 1] = part end
redis.call('SPUBLISH', P .. 'steps', cmsgpack.pack(message))
return 'ok'
""")

# ARGV: prefix, token, channels. What a living gateway wishes for stays.
CLOSE: Final = Script(
    _COUNTED
    + """
local P = ARGV[1]
if redis.call('GET', P .. 'owner') ~= ARGV[2] then return 'fenced' end
if KEYS[2] then
  local keys = {P .. 'counts', P .. 'channels'}
  for i = 3, #ARGV do
    keys[#keys + 1] = P .. 's:' .. ARGV[i]
    keys[#keys + 1] = P .. 'h:' .. ARGV[i]
  end
  here(keys)
end
bury(P)
local closed = {}
for i = 3, #ARGV do
  if redis.call('HEXISTS', P .. 'counts', ARGV[i]) == 0 then
    redis.call('UNLINK', P .. 's:' .. ARGV[i], P .. 'h:' .. ARGV[i])
    redis.call('SREM', P .. 'channels', ARGV[i])
    closed[#closed + 1] = ARGV[i]
  end
end
return closed
"""
)

# ARGV: prefix. Forgets all but the generation, unless someone is in charge.
WIPE: Final = Script("""
local P = ARGV[1]
if redis.call('EXISTS', P .. 'lease') == 1 then return 0 end
local keys = {P .. 'head', P .. 'channels', P .. 'gateways', P .. 'alive', P .. 'counts', P .. 'changes'}
for _, gateway in ipairs(redis.call('HKEYS', P .. 'gateways')) do keys[#keys + 1] = P .. 'w:' .. gateway end
for _, channel in ipairs(redis.call('SMEMBERS', P .. 'channels')) do
  keys[#keys + 1] = P .. 's:' .. channel
  keys[#keys + 1] = P .. 'h:' .. channel
end
here(keys)
for i = 1, #keys, 1000 do redis.call('UNLINK', unpack(keys, i, math.min(i + 999, #keys))) end
return 1
""")

# ARGV: prefix, gateway, ttl, version, the version that it left, additions, then these, then what is removed.
# Another version than it left is that of a replica which took over without what was wished for last.
# The engine is told of what is not there, again where it was told before.
WISH: Final = Script(
    _COUNTED
    + """
local P, gateway = ARGV[1], ARGV[2]
local key = P .. 'w:' .. gateway
here({key, P .. 'gateways', P .. 'alive', P .. 'counts', P .. 'changes', P .. 'channels'})
local now = clock()
local known = redis.call('ZSCORE', P .. 'alive', gateway)
local alive = 1
local minus, plus, cold = {}, {}, {}
if not known or tonumber(known) <= now or redis.call('HGET', P .. 'gateways', gateway) ~= ARGV[5] then
  minus = forget(P, gateway)
  alive = 0
end
local additions = tonumber(ARGV[6])
for i = 7, 6 + additions do
  if redis.call('SADD', key, ARGV[i]) == 1 and redis.call('HINCRBY', P .. 'counts', ARGV[i], 1) == 1 then
    plus[#plus + 1] = ARGV[i]
  end
  if redis.call('SISMEMBER', P .. 'channels', ARGV[i]) == 0 then cold[#cold + 1] = ARGV[i] end
end
for i = 7 + additions, #ARGV do
  if redis.call('SREM', key, ARGV[i]) == 1 then drop(P, ARGV[i], minus) end
end
redis.call('ZADD', P .. 'alive', string.format('%.0f', now + tonumber(ARGV[3])), gateway)
if #ARGV > 6 or alive == 0 then redis.call('HSET', P .. 'gateways', gateway, ARGV[4]) end
note(P, minus, plus)
if cold[1] then redis.call('SPUBLISH', P .. 'wishes', cmsgpack.pack(cold)) end
return alive
"""
)

# ARGV: prefix, gateway.
LEAVE: Final = Script(
    _COUNTED
    + """
local P = ARGV[1]
here({P .. 'w:' .. ARGV[2], P .. 'alive', P .. 'counts', P .. 'changes'})
note(P, forget(P, ARGV[2]), {})
return 1
"""
)

# ARGV: prefix, where the reader is in the changes ('' for nowhere), how many of these at once.
# Returns how many gateways there are, where that is, and {'w', all that is wished for} | {'c', sign, names, …}.
INTERESTS: Final = Script(
    _COUNTED
    + """
local P, since = ARGV[1], ARGV[2]
here({P .. 'alive', P .. 'counts', P .. 'changes'})
bury(P)
local gateways = redis.call('ZCARD', P .. 'alive')
-- What the reader has read last is there: so is all that came after it.
if since ~= '' and redis.call('XRANGE', P .. 'changes', since, since)[1] then
  local found = {'c'}
  for _, one in ipairs(redis.call('XRANGE', P .. 'changes', '(' .. since, '+', 'COUNT', ARGV[3])) do
    since = one[1]
    for _, part in ipairs(one[2]) do found[#found + 1] = part end
  end
  return {gateways, since, found}
end
local last = redis.call('XREVRANGE', P .. 'changes', '+', '-', 'COUNT', 1)[1]
local at = last and last[1] or redis.call('XADD', P .. 'changes', '*', '0', '')
return {gateways, at, {'w', redis.call('HKEYS', P .. 'counts')}}
"""
)

# ARGV: prefix, then for each channel its name, and the epoch and seq that the reader has ('' and '' for none).
# Returns run, step, complete, header, age in ms, and for each channel
# {} | {'e', entry…} | {'w', e, q, t, a, b, entry…}.
READ: Final = Script("""
local P = ARGV[1]
local head = redis.call('HMGET', P .. 'head', 'run', 'step', 'complete', 'header', 'at')
if not head[1] then return {} end
if KEYS[2] then
  -- A channel that is not here would be taken for one that is not there.
  local keys = {}
  for i = 2, #ARGV, 3 do
    keys[#keys + 1] = P .. 's:' .. ARGV[i]
    keys[#keys + 1] = P .. 'h:' .. ARGV[i]
  end
  here(keys)
end
local t = redis.call('TIME')
local age = t[1] * 1000 + math.floor(t[2] / 1000) - tonumber(head[5])
local answer = {head[1], head[2], head[3], head[4], string.format('%.0f', age)}
for i = 2, #ARGV, 3 do
  local snapshot, history = P .. 's:' .. ARGV[i], P .. 'h:' .. ARGV[i]
  local epoch = redis.call('HGET', snapshot, 'e')
  local found = {}
  if epoch then
    local list = nil
    if epoch == ARGV[i + 1] then
      local have = tonumber(ARGV[i + 2])
      list = redis.call('XRANGE', history, '(' .. ARGV[i + 2] .. '-0', '+')
      if list[1] then
        if list[1][1] ~= string.format('%.0f', have + 1) .. '-0' then list = nil end
      else
        local last = redis.call('XREVRANGE', history, '+', '-', 'COUNT', 1)
        local newest = last[1] and last[1][1] or redis.call('HGET', snapshot, 'q') .. '-0'
        if newest ~= ARGV[i + 2] .. '-0' then list = nil end
      end
    end
    if list then
      found[1] = 'e'
    else
      local whole = redis.call('HMGET', snapshot, 'e', 'q', 't', 'a', 'b')
      found = {'w', whole[1], whole[2], whole[3], whole[4], whole[5]}
      list = redis.call('XRANGE', history, '-', '+')
    end
    for _, one in ipairs(list) do found[#found + 1] = one[2][2] end
  end
  answer[#answer + 1] = found
end
return answer
""")
