-- The usual case, with few commands and few strings: there is a user or a login, or both; the accounts exist, nothing has
-- ended by itself or leaves a window, and it fits. Returns the answer; nil, with nothing written: something is unusual, and
-- what follows decides.
--
-- It reads what accounts.lua describes, and says nothing else than what that would say: windows that were not told yet to
-- forget hold too much, never too little, so what fits into them fits.
local call, read, write, sub, find, floor = redis.call, struct.unpack, struct.pack, string.sub, string.find, math.floor
-- Those of all questions of the call; below KEYS and ARGV are those of one.
local keys, arguments = KEYS, ARGV
local KEYS, ARGV
local NEVER_ENDS, MOST_COUNTED = 281474976710655, 4294967295
-- A string that is longer than it need be is written anew.
local TOO_LONG = 512
-- How long keys are kept (s), and when for longer again: as in accounts.lua. What counts a message sees only that they will be
-- there for as long as it counts: its reservation has them kept.
local KEPT, KEPT_AGAIN, KEPT_AFTER_COUNTING = 93600, 90000, 87000

-- Questions that go together mostly have the same limits.
local parameters, who, timeout, max_1, max_2, max_3, max_4, max_5, max_6
local function read_parameters(packed)
  if packed == parameters then return end
  parameters = packed
  local _
  who, _, timeout, max_1, max_2, max_3, max_4, max_5, max_6 = read('>I1I1I6I6I6I6I6I6I6', packed)
end

-- The place of a fixed-size entry that begins so, in a list that begins at `from`.
local function place_in(list, entry, from, size)
  local at = from
  while true do
    local place = find(list, entry, at, true)
    if not place then return end
    local beyond = (place - from) % size
    if beyond == 0 then return place end
    at = place + size - beyond
  end
end

-- The name of the shard that a recipient is in.
local function usual_shard(shards, key)
  if shards == 1 then return '\0\0\0' end
  local hash, level = read('>I4', key), 1
  while level * 2 <= shards do level = level * 2 end
  local shard = hash % (level * 2)
  return write('>I3', shard < shards and shard or hash % level)
end

-- The strings of the accounts whose keys begin at k: of the customer, of its user or login, of the login if there are both.
local function accounts(k, senders)
  local got
  if senders == 3 then
    got = call('MGET', keys[k], keys[k + 2], keys[k + 4])
  elseif senders > 0 then
    got = call('MGET', keys[k], keys[k + 2])
  else
    return
  end
  return got[1], got[2], got[3]
end
