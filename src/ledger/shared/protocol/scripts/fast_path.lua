-- The fast path, for the usual case, with few commands and few strings: there is a user or a login, or both; the accounts exist, no
-- reservation has expired, and the request fits. Returns the response; or nil, with nothing written, if anything is unusual: then the
-- slow path decides.
--
-- It reads what accounts.lua describes, and decides exactly as the slow path would: windows from which nothing was dropped yet contain
-- too much, never too little, so what fits into them fits.
local call, read, write, sub, find, floor = redis.call, struct.unpack, struct.pack, string.sub, string.find, math.floor
-- Of all requests of the call; below, KEYS and ARGV are those of one request.
local keys, arguments = KEYS, ARGV
local KEYS, ARGV
local NEVER_EXPIRES, MAX_COUNT = 281474976710655, 4294967295
-- A string that has this many unused bytes at its end is rewritten by the slow path.
local TOO_LONG = 512
-- When keys expire (s), and when that is renewed: as in accounts.lua. A commit only makes sure that they will exist for a day
-- longer than the message counts: its reservation has renewed them.
local TTL, TTL_RENEWED_BELOW, TTL_AFTER_COMMIT = 180000, 176400, 173400

-- Requests of one call mostly have the same parameters.
local parameters, who, timeout, max_1, max_2, max_3, max_4, max_5, max_6
local function read_parameters(packed)
  if packed == parameters then return end
  parameters = packed
  local _
  who, _, timeout, max_1, max_2, max_3, max_4, max_5, max_6 = read('>I1I1I6I6I6I6I6I6I6', packed)
end

-- The place of a fixed-size entry that begins with `entry`, in a list that begins at `from`.
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
local function shard_name(shards, key)
  if shards == 1 then return '\0\0\0' end
  local hash, level = read('>I4', key), 1
  while level * 2 <= shards do level = level * 2 end
  local shard = hash % (level * 2)
  return write('>I3', shard < shards and shard or hash % level)
end

-- The strings of the accounts whose keys begin at k: of the customer; of the user, or of the login if there is no user; of the login
-- if there are both.
local function accounts(k, senders)
  local got
  if senders == 3 then
    got = call('MGET', keys[k], keys[k + 2], keys[k + 4])
  elseif senders > 0 then
    got = call('MGET', keys[k], keys[k + 2])
  else
    return
  end
  -- An empty one does not exist yet: see accounts.lua.
  return got[1] ~= '' and got[1], got[2] ~= '' and got[2], got[3] ~= '' and got[3]
end
