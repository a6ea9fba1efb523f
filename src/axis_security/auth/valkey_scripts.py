"""The Lua of sessions and throttles: each script is one operation on one key, so it is atomic, and at home in a cluster.

All sessions of a person live in one hash, ``axis:s:{route}``, whose fields are:

* ``s:<handle>``: a session;
* ``i:<digest>``: an id of it, and when it was superseded, with what it stood for then;
* ``e:<account>``: the lowest epoch that is still good.

Times are whole microseconds since 1970, which a Lua number holds exactly until the year 2255; records are MessagePack, which keeps them exact.
Deadlines on keys are relative, so that they do not depend on the two clocks agreeing.

``KEYS[2]``, where it is given, is ``axis:w:{route}`` in the same slot. It holds nothing; it is written so that the script writes something even
where it finds nothing to end: ``WAIT`` waits for what *its own connection* wrote, and would not wait at all for a script that wrote nothing.

Every script begins with a shebang line: it declares itself a script that writes, so a server cut off from its replicas
(``min-replicas-to-write``) refuses it as a whole, reading included.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

__all__ = [
    "CONFIRM", "END", "LIST", "REFUND", "RESERVE", "RESET", "RESOLVE", "REVOKE", "ROTATE", "START", "Script",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Script:
    """A script and its name in the server's cache."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        # The server names scripts by SHA-1; nothing here depends on its strength.
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode("ascii"), usedforsecurity=False).hexdigest())


_SESSIONS: Final = """#!lua
local K = KEYS[1]
if KEYS[2] then redis.call('SET', KEYS[2], '1', 'PX', 1000) end
local function get(f)
  local v = redis.call('HGET', K, f)
  if v then return cmsgpack.unpack(v) end
end
local function put(f, r) redis.call('HSET', K, f, cmsgpack.pack(r)) end
local function lowest(u) return tonumber(redis.call('HGET', K, 'e:' .. u) or '-1') end
local function live(s, now) return s.en > now and s.se + s.id > now and s.ep >= lowest(s.u) end
local function num(n) return string.format('%.0f', n) end
local function answer(h, s, o, sup)
  return {'live', h, s.u, o.t, num(o.a), o.m, num(o.at), num(s.st), num(s.se), num(s.en), s.c, s.n, sup}
end
local function find(from)
  for n = from, #ARGV do
    local i = get('i:' .. ARGV[n])
    if i then return i, get('s:' .. i.h), 'i:' .. ARGV[n] end
  end
end
local function each(kind, act)
  local all = redis.call('HGETALL', K)
  for n = 1, #all, 2 do
    if string.sub(all[n], 1, 2) == kind then act(string.sub(all[n], 3), cmsgpack.unpack(all[n + 1]), all[n]) end
  end
end
local function drop(handles)
  local gone = 0
  each('i:', function(_, i, f) if handles[i.h] then redis.call('HDEL', K, f) end end)
  for h in pairs(handles) do gone = gone + redis.call('HDEL', K, 's:' .. h) end
  return gone
end
local function last(us)
  local ms = math.ceil(us / 1000)
  if redis.call('PTTL', K) < ms then redis.call('PEXPIRE', K, ms) end
end
"""

START: Final = Script(
    _SESSIONS
    + """
local u, h, digest, ep, now = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
if ep < lowest(u) or redis.call('HEXISTS', K, 'i:' .. digest) == 1 or redis.call('HEXISTS', K, 's:' .. h) == 1 then return {0, 0} end
local going, ended, kept = {}, 0, {}
for n = 15, #ARGV do
  local i, s = get('i:' .. ARGV[n])
  s = i and get('s:' .. i.h)
  if s then
    going[i.h] = true
    if live(s, now) then ended = ended + 1 end
  end
end
each('s:', function(name, s)
  if s.u == u and not going[name] then
    if live(s, now) then kept[#kept + 1] = {name, s.se, s.st} else going[name] = true end
  end
end)
table.sort(kept, function(a, b)
  if a[2] ~= b[2] then return a[2] > b[2] end
  if a[3] ~= b[3] then return a[3] > b[3] end
  return a[1] < b[1]
end)
for n = math.max(tonumber(ARGV[14]), 1), #kept do
  going[kept[n][1]] = true
  ended = ended + 1
end
drop(going)
put('s:' .. h, {u = u, ep = ep, st = now, se = now, id = tonumber(ARGV[6]), en = now + tonumber(ARGV[7]), a = tonumber(ARGV[8]),
  m = ARGV[9], at = tonumber(ARGV[10]), t = ARGV[11], c = ARGV[12], n = ARGV[13]})
put('i:' .. digest, {h = h})
last(tonumber(ARGV[7]))
return {1, ended}
"""
)
"""Starts a session, and ends the one it displaces and those over the cap."""

RESOLVE: Final = Script(
    _SESSIONS
    + """
local now, touch, grace = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local i, s = find(4)
if not s or not live(s, now) then return {} end
if i.sup and i.sup + grace <= now then
  drop({[i.h] = true})
  return {'reused', i.h, s.u}
end
if s.se + touch <= now then
  s.se = now
  put('s:' .. i.h, s)
end
if i.sup then return answer(i.h, s, i, 1) end
return answer(i.h, s, s, 0)
"""
)
"""Finds a session by its id, counts it as seen, and ends it where an id was used again after it was replaced."""
# INVARIANT: a superseded id stands for what was proved while it was the session's, never for what its successor proves: whoever kept a
# copy of an id gains nothing from the person's step-up (ASVS 7.2.4).

ROTATE: Final = Script(
    _SESSIONS
    + """
local digest, now = ARGV[1], tonumber(ARGV[2])
local i, s, f = find(8)
if not s or i.sup or not live(s, now) or redis.call('HEXISTS', K, 'i:' .. digest) == 1 then return {} end
put(f, {h = i.h, sup = now, a = s.a, m = s.m, at = s.at, t = s.t})
put('i:' .. digest, {h = i.h})
s.se = math.max(s.se, now)
if ARGV[3] ~= '' then s.a = tonumber(ARGV[3]) end
if ARGV[4] ~= '' then s.m = string.sub(ARGV[4], 2) end
if ARGV[5] ~= '' then s.at = tonumber(ARGV[5]) end
if ARGV[6] == '1' then s.t = ARGV[7] end
put('s:' .. i.h, s)
local old = {}
each('i:', function(_, o, name) if o.h == i.h and o.sup then old[#old + 1] = {o.sup, name} end end)
table.sort(old, function(a, b) return a[1] > b[1] end)
for n = 33, #old do redis.call('HDEL', K, old[n][2]) end
return answer(i.h, s, s, 0)
"""
)
"""Gives a session a new id; one caller wins."""
# Of superseded ids the newest 32 are kept, so that rotation cannot grow the key without end; an older one is unknown, not reused.

END: Final = Script(
    _SESSIONS
    + """
local i, s = find(1)
if not s then return {} end
drop({[i.h] = true})
return {i.h, s.u}
"""
)
"""Ends the session of an id."""

REVOKE: Final = Script(
    _SESSIONS
    + """
local u, handle, keep, ep = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local going = {}
each('s:', function(name, s, f)
  if s.u == u then
    if handle ~= '' then
      if name == handle then going[name] = true end
    elseif name ~= keep then
      going[name] = true
    elseif ep and s.ep < ep then
      s.ep = ep
      put(f, s)
    end
  end
end)
local gone = drop(going)
if ep then
  redis.call('HSET', K, 'e:' .. u, num(math.max(ep, lowest(u))))
  last(tonumber(ARGV[5]))
end
return gone
"""
)
"""Ends one session of a user, all, or all but one, and refuses to start older ones."""

LIST: Final = Script(
    _SESSIONS
    + """
local u, now, found = ARGV[1], tonumber(ARGV[2]), {}
each('s:', function(name, s) if s.u == u and live(s, now) then found[#found + 1] = answer(name, s, s, 0) end end)
return found
"""
)
"""A user's live sessions."""

CONFIRM: Final = Script("#!lua\nredis.call('SET', KEYS[1], '1', 'PX', 1000)\nreturn 1\n")
"""Writes, so that a wait for it is a wait for everything before it: replication keeps the order."""

# --- throttles: one key holds one time stamp (GCRA). Whole microseconds, so that a limit of 7 is 7 and not 6.

RESERVE: Final = Script("""#!lua
local now, step, window = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now) + step
if tat - now > window then return {0, string.format('%.0f', tat - now - window)} end
redis.call('SET', KEYS[1], string.format('%.0f', tat), 'PX', math.ceil((tat - now) / 1000))
return {1, '0'}
""")
"""Takes one attempt out of a budget, or says how long until there is one."""

REFUND: Final = Script("""#!lua
local now, step = tonumber(ARGV[1]), tonumber(ARGV[2])
local tat = tonumber(redis.call('GET', KEYS[1]) or '0')
if tat <= now then return 0 end
tat = tat - step
if tat <= now then redis.call('DEL', KEYS[1])
else redis.call('SET', KEYS[1], string.format('%.0f', tat), 'PX', math.ceil((tat - now) / 1000)) end
return 1
""")
"""Gives one attempt back."""

RESET: Final = Script("""#!lua
return redis.call('DEL', KEYS[1])
""")
"""Fills a budget again."""
