-- The accounts of a customer, of a user and of a login: one hash each.
--
--   s      summary. Customer: the latest time that was seen (ms), when the first reservation may end (ms), until when the
--          key is kept (s), recipients held; windows of a day and of ten minutes. User, login: when the first reservation
--          may end, until when the key is kept, messages held; window of messages
--   d p    entries of the customer's windows; d those of messages
--   o..    (customer) an open transaction: when it ends by itself (ms), its recipients
--   D..    (customer) a daemon: when it last counted (s), the smallest nonce that it may send again, and those from there on that
--          it counted under
--   u      summary of different recipients: held ones that were not seen, the oldest second at which a held one was seen,
--          shards, recipients in them, the last second that was forgotten; window of when they were last seen
--   n      entries of that window
--   m..    (user, login) an open transaction: when it ends by itself (ms)
--   k..    (user, login) a held recipient: when it was last seen (s; 0: it is not counted), when each holder ends (ms)
--
-- and, of a user or login, the recipients seen: a second hash of shards, 12 bytes a recipient (its key, second last seen).
local FOREVER = 281474976710655
local KEPT, KEPT_AGAIN = 93600, 90000
local AT_ONCE = 1000

local now

local function fields_of(key, names)
  local got = {}
  for first = 1, #names, AT_ONCE do
    local last = math.min(first + AT_ONCE - 1, #names)
    local values = call('HMGET', key, unpack(names, first, last))
    for i = first, last do got[names[i]] = values[i - first + 1] end
  end
  return got
end

local function put(account, field, value)
  account.got[field], account.new[field] = value, value
end

-- What is packed is unsigned.
local function at_least_0(number)
  return number > 0 and number or 0
end

local function earliest(a, b)
  return a < b and a or b
end

-- Reads a customer's account, with one open transaction (id: 12 bytes), and lets time pass. `daemon`: 6 bytes.
local function open_customer(key, id, daemon)
  local c = { key = key, new = {} }
  local names = { 's' }
  if id then names[2] = 'o' .. id end
  if daemon then names[3] = 'D' .. daemon end
  c.got = fields_of(key, names)
  local s = c.got.s
  c.latest, c.due, c.kept, c.held = 0, FOREVER, 0, 0
  if s then c.latest, c.due, c.kept, c.held = read('>I6I6I4I4', s) end
  c.day, c.ten_minutes = window(DAY, 'd', c, s, 21), window(TEN_MINUTES, 'p', c, s, 41)
  -- A clock that steps back is taken to stand still.
  now = math.max(time(), c.latest)
  c.latest = now
  forget(c.day, now)
  forget(c.ten_minutes, now)
  if c.due <= now then
    c.due = FOREVER
    local all = call('HGETALL', key)
    for i = 1, #all, 2 do
      local field, value = all[i], all[i + 1]
      local kind = sub(field, 1, 1)
      if kind == 'o' then
        local ends = read('>I6', value)
        if ends <= now then
          c.held = c.held - (#value - 6) / 8
          put(c, field, false)
        else
          c.due = earliest(c.due, ends)
        end
      elseif kind == 'D' and (read('>I4', value) + 2 * DAY) * 1000 < now then
        put(c, field, false)
      end
    end
  end
  local mine = id and c.got['o' .. id]
  if mine then
    local m = { ends = read('>I6', mine), keys = sub(mine, 7), n = (#mine - 6) / 8, has = {} }
    for i = 1, m.n do m.has[sub(m.keys, i * 8 - 7, i * 8)] = true end
    c.mine = m
  end
  return c
end

local function held_key(value)
  return read('>I4', value), sub(value, 5)
end

-- Looks at all that is held: some of it has ended by itself, and some was last seen too long ago to be counted still.
local function look_through(a)
  a.due, a.known = FOREVER, NEVER
  local all = call('HGETALL', a.key)
  for i = 1, #all, 2 do
    local field, value = all[i], all[i + 1]
    -- As it will be: a reset looks twice before anything is saved.
    if a.new[field] ~= nil then value = a.new[field] end
    local kind = value and sub(field, 1, 1)
    if kind == 'm' then
      local ends = read('>I6', value)
      if ends <= now then
        a.open = a.open - 1
        put(a, field, false)
      else
        a.due = earliest(a.due, ends)
      end
    elseif kind == 'k' then
      local seen, holders = held_key(value)
      local left = ''
      for place = 1, #holders, 6 do
        local ends = read('>I6', holders, place)
        if ends > now then
          left = left .. sub(holders, place, place + 5)
          a.due = earliest(a.due, ends)
        end
      end
      if seen > 0 and seen <= a.times.forgotten then
        seen, a.fresh = 0, a.fresh + 1
      end
      if left == '' then
        if seen == 0 then a.fresh = a.fresh - 1 end
        put(a, field, false)
      else
        if seen > 0 then a.known = earliest(a.known, seen) end
        local after = write('>I4', seen) .. left
        if after ~= value then put(a, field, after) end
      end
    end
  end
end

-- Reads a user's or login's account with some recipients, and lets time pass.
local function open_sender(key, shards_key, id, keys)
  local a = { key = key, new = {}, shards_key = shards_key, shard = {}, changed = {} }
  local names = { 's', 'u' }
  if id then names[3] = 'm' .. id end
  for _, recipient in ipairs(keys) do names[#names + 1] = 'k' .. recipient end
  a.got = fields_of(key, names)
  local s, u = a.got.s, a.got.u
  a.due, a.kept, a.open = FOREVER, 0, 0
  if s then a.due, a.kept, a.open = read('>I6I4I4', s) end
  a.messages, a.times = window(DAY, 'd', a, s, 15), window(DAY, 'n', a, u, 20)
  a.fresh, a.known, a.shards, a.stored = 0, NEVER, 1, 0
  if u then a.fresh, a.known, a.shards, a.stored, a.times.forgotten = read('>I4I4I3I4I4', u) end
  a.had = a.stored
  forget(a.messages, now)
  forget(a.times, now)
  if a.due <= now or a.known <= a.times.forgotten then look_through(a) end
  return a
end

local function save_window(account, w)
  if not w.changed then return end
  put(account, w.field, w.n > 0 and w.list)
end

local function save(account)
  local set, gone = {}, {}
  for field, value in pairs(account.new) do
    if value then
      set[#set + 1], set[#set + 2] = field, value
    else
      gone[#gone + 1] = field
    end
  end
  for first = 1, #gone, AT_ONCE do
    call('HDEL', account.key, unpack(gone, first, math.min(first + AT_ONCE - 1, #gone)))
  end
  for first = 1, #set, AT_ONCE do
    call('HSET', account.key, unpack(set, first, math.min(first + AT_ONCE - 1, #set)))
  end
  if account.kept * 1000 < now + KEPT_AGAIN * 1000 then
    call('EXPIRE', account.key, KEPT)
    if account.shards_key then call('EXPIRE', account.shards_key, KEPT) end
  end
end

local function kept_until(account)
  if account.kept * 1000 < now + KEPT_AGAIN * 1000 then return floor(now / 1000) + KEPT end
  return account.kept
end

local function save_customer(c)
  save_window(c, c.day)
  save_window(c, c.ten_minutes)
  put(c, 's', write('>I6I6I4I4', c.latest, c.due, kept_until(c), at_least_0(c.held)) .. summary(c.day) .. summary(c.ten_minutes))
  save(c)
end

local function save_sender(a)
  save_window(a, a.messages)
  save_window(a, a.times)
  put(a, 's', write('>I6I4I4', a.due, kept_until(a), at_least_0(a.open)) .. summary(a.messages))
  put(a, 'u', write('>I4I4I3I4I4', at_least_0(a.fresh), a.known, a.shards, at_least_0(a.stored), a.times.forgotten)
    .. summary(a.times))
  local set = {}
  for shard in pairs(a.changed) do
    local value = a.shard[shard]
    if value ~= '' then
      set[#set + 1], set[#set + 2] = shard, value
    else
      call('HDEL', a.shards_key, shard)
    end
  end
  for first = 1, #set, AT_ONCE do
    call('HSET', a.shards_key, unpack(set, first, math.min(first + AT_ONCE - 1, #set)))
  end
  if a.had == 0 and a.stored > 0 then call('EXPIRE', a.shards_key, KEPT) end
  save(a)
end
