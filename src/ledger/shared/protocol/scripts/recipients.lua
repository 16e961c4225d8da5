-- The unique recipients of a user or login, in shards that are split and merged one at a time (linear hashing).
local IN_A_SHARD = 24
local AT_ONCE = 1000

local function fields_of(key, names)
  local got = {}
  for first = 1, #names, AT_ONCE do
    local last = math.min(first + AT_ONCE - 1, #names)
    local values = call('HMGET', key, unpack(names, first, last))
    for i = first, last do got[names[i]] = values[i - first + 1] end
  end
  return got
end

local function level_of(shards)
  local level = 1
  while level * 2 <= shards do level = level * 2 end
  return level
end

local function shard_of(a, key)
  local hash, level = read('>I4', key), level_of(a.shards)
  local shard = hash % (level * 2)
  return shard < a.shards and shard or hash % level
end

local function shard(a, number)
  if not a.shard[number] then a.shard[number] = a.stored > 0 and call('HGET', a.more, write('>I3', number)) or '' end
  return a.shard[number]
end

-- Reads the shards of some recipients with one command.
local function read_shards(a, keys)
  if a.stored == 0 then return end
  local wanted, names = {}, {}
  for _, key in ipairs(keys) do
    local number = shard_of(a, key)
    if not a.shard[number] and not wanted[number] then
      local name = write('>I3', number)
      wanted[number], names[#names + 1] = name, name
    end
  end
  if #names == 0 then return end
  local got = fields_of(a.more, names)
  for number, name in pairs(wanted) do a.shard[number] = got[name] or '' end
end

local function find(list, key)
  local from = 1
  while true do
    local place = string.find(list, key, from, true)
    if not place or place % 12 == 1 then return place end
    from = place + 1
  end
end

-- When a recipient was last seen, if that is within the window.
local function seen(a, key)
  if a.stored == 0 then return nil end
  local list = shard(a, shard_of(a, key))
  local place = find(list, key)
  local at = place and read('>I4', list, place + 8)
  return at and at > a.times.forgotten and at or nil
end

-- A shard without entries that have left the window.
local function tidied(a, list)
  local left = {}
  for place = 1, #list, 12 do
    if read('>I4', list, place + 8) > a.times.forgotten then left[#left + 1] = sub(list, place, place + 11) end
  end
  a.stored = a.stored - (#list / 12 - #left)
  return table.concat(left)
end

local function set_shard(a, number, list)
  a.shard[number], a.changed[number] = list, true
end

local function split(a)
  local level = level_of(a.shards)
  local number, stays, goes = a.shards - level, {}, {}
  local list = tidied(a, shard(a, number))
  for place = 1, #list, 12 do
    local entry = sub(list, place, place + 11)
    local part = read('>I4', entry) % (level * 2) == number and stays or goes
    part[#part + 1] = entry
  end
  set_shard(a, number, table.concat(stays))
  set_shard(a, a.shards, table.concat(goes))
  a.shards = a.shards + 1
end

local function merge(a)
  local last = a.shards - 1
  local into = last - level_of(last)
  local list = tidied(a, shard(a, into)) .. tidied(a, shard(a, last))
  set_shard(a, into, list)
  set_shard(a, last, '')
  a.shards = last
end

-- Notes in its shard that a recipient was seen at a second.
local function remember(a, key, at)
  local number = shard_of(a, key)
  local list = shard(a, number)
  local place = find(list, key)
  if place then
    set_shard(a, number, sub(list, 1, place + 7) .. write('>I4', at) .. sub(list, place + 12))
    return
  end
  if #list >= IN_A_SHARD * 12 then list = tidied(a, list) end
  set_shard(a, number, list .. key .. write('>I4', at))
  a.stored = a.stored + 1
  if a.stored > IN_A_SHARD * a.shards then split(a) end
end

-- Frees a little of the memory of entries that have left the window.
local function tidy(a)
  if a.stored > 2 * a.times.total + IN_A_SHARD then
    local number = floor(now / 1000) * 2654435761 % 4294967296 % a.shards
    set_shard(a, number, tidied(a, shard(a, number)))
  end
  if a.shards > 1 and a.stored < IN_A_SHARD / 3 * a.shards then merge(a) end
end
