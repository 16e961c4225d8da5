-- The accounts of a customer, of a user and of a login: a string each, and a second key for what is long, a hash.
--
-- The string of a customer:
--     the latest time that was seen (ms); until when the keys are kept (s); recipients held; how many bytes of the string
--     count; how many of them are the daemons'; totals of the windows of a day and of ten minutes; of each window the rest
--     daemons: name, when it last counted (s), the smallest nonce that it may send again, how many from there on it counted
--     under, those
--     when what is held ends by itself: time (ms), how many recipients
-- and its second key:
--     d p    entries of the windows
--     t..    a transaction without user and login: when it ends by itself (ms), its recipients
-- The string of a user or login:
--     when the first transaction may end by itself (ms); until when the keys are kept (s); messages held; how many bytes of
--     the string count; different recipients held that were not seen, the oldest second at which a held one was seen;
--     whether what is held lies in the second key; totals of the windows of messages and of different recipients (when they
--     were last seen); shards, recipients in them, the last second that was forgotten; of each window the rest
--     what is held, or in the second key if that is much: name with its length (1), value with its length (2)
--         t..    an open transaction: when it ends by itself (ms), its recipients
--         k..    a held recipient: when it was last seen (s; 0: it is not counted; 4294967295: nobody has looked, and it is held as
--                one that was not seen), when each holder ends (ms)
-- and its second key:
--     d n    entries of the windows
--     ...    three bytes, the number of a shard: recipients seen, 12 bytes each (key, second last seen)
local FOREVER = 281474976710655
local KEPT, KEPT_AGAIN = 93600, 90000
local CUSTOMER, SENDER = '>I6I4I4I3I3I6I6I2I4I4I4I2I4I4I4', '>I6I4I4I3I4I4I1I6I6I3I4I4I2I4I4I4I2I4I4I4'
local CUSTOMER_SIZE, SENDER_SIZE = 60, 77
-- What is held by a sender lies in its string up to so many bytes.
local MOST_HELD = 1000
-- Ends are exact while there are few of them; beyond that, neighbours in one bucket of a 32nd of the time are merged and take
-- the later one.
local EXACT_ENDS = 32

-- A field of the second key.
local function put(account, field, value)
  account.new[field] = value
end

-- What is packed is unsigned.
local function at_least_0(number)
  return number > 0 and number or 0
end

local function earliest(a, b)
  return a < b and a or b
end

-- Reads a customer's account, and lets time pass.
local function open_customer(key, more)
  local c = { key = key, more = more, new = {}, latest = 0, kept = 0, held = 0, daemons = {}, ends = {} }
  c.day, c.ten_minutes = window(DAY, 'd', c), window(TEN_MINUTES, 'p', c)
  local d, p = c.day, c.ten_minutes
  local s = call('GET', key)
  c.exists = s
  if s then
    local size, daemons
    c.latest, c.kept, c.held, size, daemons, d.total, p.total, d.n, d.oldest, d.last, d.count, p.n, p.oldest, p.last, p.count =
      read(CUSTOMER, s)
    local place = CUSTOMER_SIZE + 1
    while place <= CUSTOMER_SIZE + daemons do
      local at, settled, nonces = read('>I4I6I3', s, place + 6)
      local counted = sub(s, place + 19, place + 18 + nonces * 6)
      c.daemons[sub(s, place, place + 5)] = { at = at, settled = settled, nonces = counted }
      place = place + 19 + nonces * 6
    end
    for entry = place, size, 10 do
      local at, count = read('>I6I4', s, entry)
      c.ends[#c.ends + 1] = { at = at, count = count }
    end
  end
  c.has_more = d.n > 0 or p.n > 0
  -- A clock that steps back is taken to stand still.
  now = math.max(time(), c.latest)
  c.latest = now
  forget(d, now)
  forget(p, now)
  if c.ends[1] and c.ends[1].at <= now then
    while c.ends[1] and c.ends[1].at <= now do
      c.held = c.held - table.remove(c.ends, 1).count
    end
    local all = call('HGETALL', more)
    for i = 1, #all, 2 do
      if sub(all[i], 1, 1) == 't' and read('>I6', all[i + 1]) <= now then put(c, all[i], false) end
    end
    for daemon, last in pairs(c.daemons) do
      if (last.at + 2 * DAY) * 1000 < now then c.daemons[daemon] = nil end
    end
  end
  return c
end

-- What a transaction holds that has neither user nor login.
local function own_transaction(c, id)
  local mine = call('HGET', c.more, 't' .. id)
  return mine and read('>I6', mine) > now and mine
end

-- One more recipient is held until then, by a transaction that holds for so long at most.
local function end_later(c, at, timeout)
  local place = #c.ends
  while place > 0 and c.ends[place].at > at do place = place - 1 end
  local before = c.ends[place]
  if before and before.at == at then
    before.count = before.count + 1
    return
  end
  local after, bucket = c.ends[place + 1], math.max(1, timeout / EXACT_ENDS)
  local function is_near(other)
    return other and #c.ends >= EXACT_ENDS and floor(other.at / bucket) == floor(at / bucket)
  end
  if is_near(after) then
    after.count = after.count + 1
  elseif is_near(before) then
    before.at, before.count = at, before.count + 1
  else
    table.insert(c.ends, place + 1, { at = at, count = 1 })
  end
end

-- Some recipients that were held until then are not held any more.
local function end_earlier(c, at, count)
  for place, other in ipairs(c.ends) do
    if other.at >= at then
      local less = earliest(count, other.count)
      other.count, count = other.count - less, count - less
      if other.count == 0 then
        table.remove(c.ends, place)
        return end_earlier(c, at, count)
      end
      return
    end
  end
end

local function held_key(value)
  return read('>I4', value), sub(value, 5)
end

-- A transaction or recipient that a sender holds.
local function put_held(a, field, value)
  a.held[field] = value
  if a.spilled then a.new[field] = value end
end

-- All that is held: some of it has ended by itself, and some was last seen too long ago to be counted still.
local function look_through(a)
  a.due, a.known = FOREVER, NEVER
  local all = {}
  if a.spilled then
    local fields = call('HGETALL', a.more)
    for i = 1, #fields, 2 do
      if #fields[i] > 3 then all[fields[i]] = fields[i + 1] end
    end
  end
  for field, value in pairs(a.held) do all[field] = value end
  for field, value in pairs(all) do
    local kind = value and sub(field, 1, 1)
    if kind == 't' then
      local ends = read('>I6', value)
      if ends <= now then
        a.open = a.open - 1
        put_held(a, field, false)
      else
        a.due = earliest(a.due, ends)
      end
    elseif kind then
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
        put_held(a, field, false)
      else
        if seen > 0 then a.known = earliest(a.known, seen) end
        local after = write('>I4', seen) .. left
        if after ~= value then put_held(a, field, after) end
      end
    end
  end
end

-- Reads what is held of some recipients.
local function look_up_held(a, keys)
  if not a.spilled then return end
  local names = {}
  for _, key in ipairs(keys) do
    local name = 'k' .. key
    if a.held[name] == nil then names[#names + 1] = name end
  end
  for name, value in pairs(fields_of(a.more, names)) do a.held[name] = value end
end

-- Reads a user's or login's account with one transaction, and lets time pass.
local function open_sender(key, more, id)
  local a = { key = key, more = more, new = {}, due = FOREVER, kept = 0, open = 0, fresh = 0, known = NEVER, shards = 1, stored = 0 }
  a.shard, a.changed, a.held = {}, {}, {}
  a.messages, a.times = window(DAY, 'd', a), window(DAY, 'n', a)
  local m, t = a.messages, a.times
  local s = call('GET', key)
  a.exists = s
  if s then
    local size, spilled
    a.due, a.kept, a.open, size, a.fresh, a.known, spilled, m.total, t.total, a.shards, a.stored, t.forgotten, m.n, m.oldest,
      m.last, m.count, t.n, t.oldest, t.last, t.count = read(SENDER, s)
    a.spilled = spilled == 1
    local place = SENDER_SIZE + 1
    while place < size do
      local name = sub(s, place + 1, place + string.byte(s, place))
      local value = place + #name + 1
      local length = read('>I2', s, value)
      a.held[name] = sub(s, value + 2, value + 1 + length)
      place = value + 2 + length
    end
  end
  a.had = a.stored
  if a.spilled and id then a.held['t' .. id] = call('HGET', more, 't' .. id) end
  forget(m, now)
  forget(t, now)
  -- What nobody had to know until now.
  for field, value in pairs(a.held) do
    if value and sub(field, 1, 1) == 'k' and read('>I4', value) == NEVER then
      local at = seen(a, sub(field, 2)) or 0
      if at > 0 then a.fresh, a.known = a.fresh - 1, earliest(a.known, at) end
      a.held[field] = write('>I4', at) .. sub(value, 5)
    end
  end
  if a.due <= now or a.known <= t.forgotten then look_through(a) end
  return a
end

local function save_window(account, w)
  if not w.changed then return end
  put(account, w.field, w.n > 0 and w.list)
end

-- Its keys are to be kept for longer again.
local function is_old(account)
  return account.kept * 1000 < now + KEPT_AGAIN * 1000
end

-- `is_new`: the second key may be.
local function save(account, whole, is_new)
  -- First what a server without memory refuses: then nothing is written.
  call('SET', account.key, whole, 'KEEPTTL')
  -- What its second key had outlived it.
  if not account.exists then call('DEL', account.more) end
  local set, gone = {}, {}
  for field, value in pairs(account.new) do
    if value then
      set[#set + 1], set[#set + 2] = field, value
    else
      gone[#gone + 1] = field
    end
  end
  for first = 1, #gone, AT_ONCE do
    call('HDEL', account.more, unpack(gone, first, math.min(first + AT_ONCE - 1, #gone)))
  end
  for first = 1, #set, AT_ONCE do
    call('HSET', account.more, unpack(set, first, math.min(first + AT_ONCE - 1, #set)))
  end
  if is_old(account) then call('EXPIRE', account.key, KEPT) end
  if is_old(account) or (is_new and #set > 0) then call('EXPIRE', account.more, KEPT) end
end

local function kept_until(account)
  return is_old(account) and floor(now / 1000) + KEPT or account.kept
end

local function save_customer(c)
  local d, p = c.day, c.ten_minutes
  save_window(c, d)
  save_window(c, p)
  -- The second key is always there: a node that a slot is moving to cannot tell what is not there from what is to come.
  if not c.exists or (d.changed and d.n == 0) then put(c, 'd', '') end
  local daemons, ends = {}, {}
  for daemon, last in pairs(c.daemons) do
    daemons[#daemons + 1] = daemon .. write('>I4I6I3', last.at, last.settled, #last.nonces / 6) .. last.nonces
  end
  for place, other in ipairs(c.ends) do ends[place] = write('>I6I4', other.at, other.count) end
  daemons, ends = table.concat(daemons), table.concat(ends)
  local size = CUSTOMER_SIZE + #daemons + #ends
  local whole = write(CUSTOMER, c.latest, kept_until(c), at_least_0(c.held), size, #daemons, d.total, p.total, d.n, d.oldest,
    d.last, d.count, p.n, p.oldest, p.last, p.count) .. daemons .. ends
  save(c, whole, not c.has_more)
end

-- What is held, as it lies in the string; in the second key if that is much.
local function packed_held(a)
  if a.spilled and a.open > 0 then return '' end
  a.spilled = false
  local entries, size = {}, 0
  for field, value in pairs(a.held) do
    if value then
      local entry = string.char(#field) .. field .. write('>I2', #value) .. value
      entries[#entries + 1], size = entry, size + #entry
    end
  end
  if size <= MOST_HELD then return table.concat(entries) end
  a.spilled = true
  for field, value in pairs(a.held) do
    if value then put(a, field, value) end
  end
  return ''
end

local function save_sender(a)
  local m, t = a.messages, a.times
  save_window(a, m)
  save_window(a, t)
  for number in pairs(a.changed) do
    local list = a.shard[number]
    put(a, write('>I3', number), list ~= '' and list)
  end
  local held = packed_held(a)
  local whole = write(SENDER, a.due, kept_until(a), at_least_0(a.open), SENDER_SIZE + #held, at_least_0(a.fresh), a.known,
    a.spilled and 1 or 0, m.total, t.total, a.shards, at_least_0(a.stored), t.forgotten, m.n, m.oldest, m.last, m.count, t.n,
    t.oldest, t.last, t.count) .. held
  save(a, whole, a.had == 0)
end
