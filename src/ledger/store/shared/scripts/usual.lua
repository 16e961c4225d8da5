-- The usual case, with few commands and without tables: there is a user and no login, the accounts exist, nothing has ended by
-- itself, and it fits. Returns the answer; nil, with nothing written: something is unusual, and what follows decides.
--
-- It reads what accounts.lua describes, and says nothing else than what that would say: windows that were not told yet to
-- forget hold too much, never too little, so what fits into them fits.
-- A question's own: those of the call belong to several.
local KEYS, ARGV = KEYS, ARGV
local call, read, write, sub, floor = redis.call, struct.unpack, struct.pack, string.sub, math.floor

-- Whether a list of fixed-size entries has one that begins so.
local function place_in(list, entry, from, size)
  while true do
    local place = string.find(list, entry, from, true)
    if not place or (place - from) % size == 0 then return place end
    local skipped = place + 1
    local unaligned = (skipped - from) % size
    from = unaligned == 0 and skipped or skipped + size - unaligned
  end
end

local function usual_shard(shards, key)
  local hash, level = read('>I4', key), 1
  while level * 2 <= shards do level = level * 2 end
  local shard = hash % (level * 2)
  return shard < shards and shard or hash % level
end
