-- Accounts: of a customer, of a user and of a login. Each has a string, and a second key, a hash, for what may grow long.
--
-- The string of a customer:
--     the latest time seen (ms); when the keys expire (s); recipients reserved; the length of the string that is used; the length
--     of the daemons' part of it; the totals of the windows of a day and of ten minutes; the rest of each window
--     daemons: id, when it last committed (s), the smallest nonce that it may send again, how many nonces from there on were
--     counted, those nonces
--     expiries: when reservations expire (ms), how many recipients
-- and its second key:
--     d p    entries of the windows
--     t..    the reservation of a transaction without user and login: when it expires (ms), its recipients
-- The string of a user or login:
--     when the first reservation expires (ms); when the keys expire (s); messages reserved; the length of the string that is used;
--     unique recipients reserved that were not seen before; the oldest second at which a reserved one was seen; whether what is
--     reserved is in the second key; the totals of the windows of messages and of unique recipients (when each was last seen);
--     shards, recipients in them, the last second that has expired; the rest of each window
--     what is reserved, or in the second key if that is long: a name with its length (1), a value with its length (2)
--         t..    a reservation: when it expires (ms), its recipients
--         k..    a reserved recipient: when it was last seen (s; 0: not within the window; 4294967295: nobody has looked, and it
--                counts as one that was not seen), when each reservation of it expires (ms)
-- and its second key:
--     d n    entries of the windows
--     ...    three bytes, the number of a shard: recipients seen, 12 bytes each (key, second last seen)
local FOREVER = 281474976710655
-- An account's keys live for two days after its last use, although nothing counts for longer than one: the server expires them by its
-- own clock, and must not if that jumps forward by a day.
local TTL, TTL_RENEWED_BELOW = 180000, 176400
local CUSTOMER, SENDER = '>I6I4I4I3I3I6I6I2I4I4I4I2I4I4I4', '>I6I4I4I3I4I4I1I6I6I3I4I4I2I4I4I4I2I4I4I4'
local CUSTOMER_SIZE, SENDER_SIZE = 60, 77
-- What a sender has reserved is in its string up to this length.
local MAX_INLINE = 1000
-- Expiries are exact while there are few; beyond that, neighbours in one bucket of a 32nd of the timeout are merged and take the
-- later time.
local EXACT_EXPIRIES = 32

-- The string of an account. An empty one only holds a place while its slot migrates (client/connection.rs).
local function existing(key)
  local s = call('GET', key)
  return s ~= '' and s
end

-- Sets a field of the second key; false deletes it.
local function put(account, field, value)
  account.new[field] = value
end

-- Packed numbers are unsigned.
local function at_least_0(number)
  return number > 0 and number or 0
end

local function earliest(a, b)
  return a < b and a or b
end

-- A daemon is new to the customer: those that counted longest ago make room, as each daemon start brings a name, and every commit
-- reads all of them. A request of one that is dropped here would have to arrive after this many other daemons have counted.
local MOST_DAEMONS = 32

local function make_room_for_daemon(c)
  local names = {}
  for daemon, last in pairs(c.daemons) do
    if (last.at + 2 * DAY) * 1000 < now then c.daemons[daemon] = nil else names[#names + 1] = daemon end
  end
  if #names < MOST_DAEMONS then return end
  table.sort(names, function(one, other)
    local a, b = c.daemons[one].at, c.daemons[other].at
    return a > b or (a == b and one < other)
  end)
  for place = MOST_DAEMONS, #names do c.daemons[names[place]] = nil end
end

-- Moves all of a customer's account by some seconds.
local function move_customer(c, by)
  now = time()
  c.latest, c.keys_until = now, 0
  move_window(c.day, by)
  move_window(c.ten_minutes, by)
  local left = {}
  for _, other in ipairs(c.expiries) do
    other.at = other.at + by * 1000
    if is_too_late(other.at) then c.reserved = c.reserved - other.count else left[#left + 1] = other end
  end
  c.expiries = left
  local all = call('HGETALL', c.more)
  for i = 1, #all, 2 do
    if sub(all[i], 1, 1) == 't' then
      local expires = read('>I6', all[i + 1]) + by * 1000
      put(c, all[i], expires > now and not is_too_late(expires) and write('>I6', expires) .. sub(all[i + 1], 7))
    end
  end
  for _, last in pairs(c.daemons) do last.at = moved_second(last.at, by) end
end

-- Reads a customer's account, and drops what has expired. `by`: all of it is moved by so many seconds before.
local function open_customer(key, more, by)
  local c = { key = key, more = more, new = {}, latest = 0, keys_until = 0, reserved = 0, daemons = {}, expiries = {} }
  c.day, c.ten_minutes = window(DAY, 'd', c), window(TEN_MINUTES, 'p', c)
  local d, p = c.day, c.ten_minutes
  local s = existing(key)
  c.exists = s
  if s then
    local size, daemons
    c.latest, c.keys_until, c.reserved, size, daemons, d.total, p.total, d.n, d.oldest, d.last, d.count, p.n, p.oldest, p.last,
      p.count = read(CUSTOMER, s)
    local place = CUSTOMER_SIZE + 1
    while place <= CUSTOMER_SIZE + daemons do
      local at, settled, nonces = read('>I4I6I3', s, place + 6)
      local counted = sub(s, place + 19, place + 18 + nonces * 6)
      c.daemons[sub(s, place, place + 5)] = { at = at, settled = settled, nonces = counted }
      place = place + 19 + nonces * 6
    end
    for entry = place, size, 10 do
      local at, count = read('>I6I4', s, entry)
      c.expiries[#c.expiries + 1] = { at = at, count = count }
    end
  end
  c.has_more = d.n > 0 or p.n > 0
  if by or c.latest > time() + MAX_AHEAD then move_customer(c, by or 0) end
  -- A clock that steps back a little counts as stopped.
  now = math.max(time(), c.latest)
  c.latest = now
  forget(d, now)
  forget(p, now)
  if c.expiries[1] and c.expiries[1].at <= now then
    while c.expiries[1] and c.expiries[1].at <= now do
      c.reserved = c.reserved - table.remove(c.expiries, 1).count
    end
    local all = call('HGETALL', more)
    for i = 1, #all, 2 do
      if sub(all[i], 1, 1) == 't' and c.new[all[i]] == nil and read('>I6', all[i + 1]) <= now then put(c, all[i], false) end
    end
    for daemon, last in pairs(c.daemons) do
      if (last.at + 2 * DAY) * 1000 < now then c.daemons[daemon] = nil end
    end
  end
  return c
end

-- The reservation of a transaction that has neither user nor login.
local function reservation_without_sender(c, id)
  local reservation = c.new['t' .. id]
  if reservation == nil then reservation = call('HGET', c.more, 't' .. id) end
  return reservation and read('>I6', reservation) > now and reservation
end

-- One more recipient is reserved until `at`. `timeout`: how long a reservation lasts at most.
local function add_expiry(c, at, timeout)
  local place = #c.expiries
  while place > 0 and c.expiries[place].at > at do place = place - 1 end
  local before = c.expiries[place]
  if before and before.at == at then
    before.count = before.count + 1
    return
  end
  local after, bucket = c.expiries[place + 1], math.max(1, timeout / EXACT_EXPIRIES)
  local function is_near(other)
    return other and #c.expiries >= EXACT_EXPIRIES and floor(other.at / bucket) == floor(at / bucket)
  end
  if is_near(after) then
    after.count = after.count + 1
  elseif is_near(before) then
    before.at, before.count = at, before.count + 1
  else
    table.insert(c.expiries, place + 1, { at = at, count = 1 })
  end
end

-- Some recipients that were reserved until `at` no longer are.
local function remove_expiry(c, at, count)
  for place, other in ipairs(c.expiries) do
    if other.at >= at then
      local less = earliest(count, other.count)
      other.count, count = other.count - less, count - less
      if other.count == 0 then
        table.remove(c.expiries, place)
        return remove_expiry(c, at, count)
      end
      return
    end
  end
end

local function reserved_key(value)
  return read('>I4', value), sub(value, 5)
end

-- Sets a reservation or a reserved recipient of a sender; false deletes it.
local function put_reserved(a, field, value)
  a.reserved[field] = value
  if a.spilled then a.new[field] = value end
end

-- Drops reservations that have expired, and notes which reserved recipients have left the window.
local function look_through(a)
  a.next_expiry, a.oldest_seen = FOREVER, NEVER
  local all = {}
  if a.spilled then
    local fields = call('HGETALL', a.more)
    for i = 1, #fields, 2 do
      if #fields[i] > 3 then all[fields[i]] = fields[i + 1] end
    end
  end
  for field, value in pairs(a.reserved) do all[field] = value end
  for field, value in pairs(all) do
    local kind = value and sub(field, 1, 1)
    if kind == 't' then
      local expires = read('>I6', value)
      if expires <= now or is_too_late(expires) then
        a.open = a.open - 1
        put_reserved(a, field, false)
      else
        a.next_expiry = earliest(a.next_expiry, expires)
      end
    elseif kind then
      local seen, holders = reserved_key(value)
      local left = ''
      for place = 1, #holders, 6 do
        local expires = read('>I6', holders, place)
        if expires > now and not is_too_late(expires) then
          left = left .. sub(holders, place, place + 5)
          a.next_expiry = earliest(a.next_expiry, expires)
        end
      end
      if seen > 0 and seen <= a.times.forgotten then
        seen, a.unseen = 0, a.unseen + 1
      end
      if left == '' then
        if seen == 0 then a.unseen = a.unseen - 1 end
        put_reserved(a, field, false)
      else
        if seen > 0 then a.oldest_seen = earliest(a.oldest_seen, seen) end
        local after = write('>I4', seen) .. left
        if after ~= value then put_reserved(a, field, after) end
      end
    end
  end
end

-- Reads the reservations of some recipients.
local function look_up_reserved(a, keys)
  if not a.spilled then return end
  local names = {}
  for _, key in ipairs(keys) do
    local name = 'k' .. key
    if a.reserved[name] == nil then names[#names + 1] = name end
  end
  for name, value in pairs(fields_of(a.more, names)) do a.reserved[name] = value end
end

-- Whether a sender's account was counted in at a time that is still to come.
local function is_in_future(a)
  local most = floor((now + MAX_AHEAD) / 1000) + 1
  return a.messages.last > most or a.times.last > most or a.times.forgotten > most
end

-- Moves all of a sender's account by some seconds.
local function move_sender(a, by)
  if a.spilled then
    local fields = call('HGETALL', a.more)
    for i = 1, #fields, 2 do
      if #fields[i] > 3 then a.reserved[fields[i]] = fields[i + 1] end
    end
  end
  for field, value in pairs(a.reserved) do
    local kind = value and sub(field, 1, 1)
    if kind == 't' then
      put_reserved(a, field, write('>I6', at_least_0(read('>I6', value) + by * 1000)) .. sub(value, 7))
    elseif kind then
      local at, holders = reserved_key(value)
      local moved = {}
      for place = 1, #holders, 6 do
        moved[#moved + 1] = write('>I6', at_least_0(read('>I6', holders, place) + by * 1000))
      end
      if at > 0 and at <= a.times.forgotten then
        at, a.unseen = 0, a.unseen + 1
      elseif at > 0 and at < NEVER then
        at = moved_second(at, by)
      end
      put_reserved(a, field, write('>I4', at) .. table.concat(moved))
    end
  end
  move_recipients(a, by)
  move_window(a.messages, by)
  move_window(a.times, by)
  -- It is looked through, and its keys' expiry is renewed.
  a.next_expiry, a.keys_until = 0, 0
end

-- Reads a user's or login's account with one transaction's reservation, and drops what has expired. `by`: all of it is moved by so many
-- seconds before.
local function open_sender(key, more, id, by)
  local a = { key = key, more = more, new = {}, next_expiry = FOREVER, keys_until = 0, open = 0, unseen = 0, oldest_seen = NEVER }
  a.shards, a.stored = 1, 0
  a.shard, a.changed, a.reserved = {}, {}, {}
  a.messages, a.times = window(DAY, 'd', a), window(DAY, 'n', a)
  local m, t = a.messages, a.times
  local s = existing(key)
  a.exists = s
  if s then
    local size, spilled
    a.next_expiry, a.keys_until, a.open, size, a.unseen, a.oldest_seen, spilled, m.total, t.total, a.shards, a.stored,
      t.forgotten, m.n, m.oldest, m.last, m.count, t.n, t.oldest, t.last, t.count = read(SENDER, s)
    a.spilled = spilled == 1
    local place = SENDER_SIZE + 1
    while place < size do
      local name = sub(s, place + 1, place + string.byte(s, place))
      local value = place + #name + 1
      local length = read('>I2', s, value)
      a.reserved[name] = sub(s, value + 2, value + 1 + length)
      place = value + 2 + length
    end
  end
  a.had = a.stored
  if a.spilled and id then a.reserved['t' .. id] = call('HGET', more, 't' .. id) end
  if by or is_in_future(a) then move_sender(a, by or 0) end
  forget(m, now)
  forget(t, now)
  -- Looks up recipients that the fast path has not looked up.
  for field, value in pairs(a.reserved) do
    if value and sub(field, 1, 1) == 'k' and read('>I4', value) == NEVER then
      local at = seen(a, sub(field, 2)) or 0
      if at > 0 then a.unseen, a.oldest_seen = a.unseen - 1, earliest(a.oldest_seen, at) end
      a.reserved[field] = write('>I4', at) .. sub(value, 5)
    end
  end
  if a.next_expiry <= now or a.oldest_seen <= t.forgotten then look_through(a) end
  return a
end

local function save_window(account, w)
  if not w.changed then return end
  put(account, w.field, w.n > 0 and w.list)
end

-- Whether its keys' expiry must be renewed.
local function is_old(account)
  return account.keys_until * 1000 < now + TTL_RENEWED_BELOW * 1000
end

-- `is_new`: the second key may be new.
local function save(account, whole, is_new)
  -- First the command that a server without memory refuses: then nothing is written.
  call('SET', account.key, whole, 'KEEPTTL')
  -- Its second key has outlived it. Only the field that holds a place stays.
  if not account.exists then
    local all = call('HGETALL', account.more)
    for i = 1, #all, 2 do
      if all[i] ~= '' and not account.new[all[i]] then put(account, all[i], false) end
    end
  end
  local set, gone = {}, {}
  for field, value in pairs(account.new) do
    if value then
      set[#set + 1], set[#set + 2] = field, value
    else
      gone[#gone + 1] = field
    end
  end
  -- In this order: a node that a slot is migrating from does not create a key again that has become empty.
  for first = 1, #set, AT_ONCE do
    call('HSET', account.more, unpack(set, first, math.min(first + AT_ONCE - 1, #set)))
  end
  for first = 1, #gone, AT_ONCE do
    call('HDEL', account.more, unpack(gone, first, math.min(first + AT_ONCE - 1, #gone)))
  end
  if is_old(account) then call('EXPIRE', account.key, TTL) end
  if is_old(account) or (is_new and #set > 0) then call('EXPIRE', account.more, TTL) end
end

local function expiry_of_keys(account)
  return is_old(account) and floor(now / 1000) + TTL or account.keys_until
end

local function save_customer(c)
  local d, p = c.day, c.ten_minutes
  save_window(c, d)
  save_window(c, p)
  -- The second key always exists: a node that imports a slot cannot tell a key that does not exist from one that is still to come.
  if not c.exists or (d.changed and d.n == 0) then put(c, 'd', '') end
  local daemons, expiries = {}, {}
  for daemon, last in pairs(c.daemons) do
    daemons[#daemons + 1] = daemon .. write('>I4I6I3', last.at, last.settled, #last.nonces / 6) .. last.nonces
  end
  for place, other in ipairs(c.expiries) do expiries[place] = write('>I6I4', other.at, other.count) end
  daemons, expiries = table.concat(daemons), table.concat(expiries)
  local size = CUSTOMER_SIZE + #daemons + #expiries
  local whole = write(CUSTOMER, c.latest, expiry_of_keys(c), at_least_0(c.reserved), size, #daemons, d.total, p.total, d.n, d.oldest,
    d.last, d.count, p.n, p.oldest, p.last, p.count) .. daemons .. expiries
  save(c, whole, not c.has_more)
end

-- Packs what is reserved for the string; moves it to the second key if it is long.
local function pack_reserved(a)
  if a.spilled and a.open > 0 then return '' end
  a.spilled = false
  local entries, size = {}, 0
  for field, value in pairs(a.reserved) do
    if value then
      local entry = string.char(#field) .. field .. write('>I2', #value) .. value
      entries[#entries + 1], size = entry, size + #entry
    end
  end
  if size <= MAX_INLINE then return table.concat(entries) end
  a.spilled = true
  for field, value in pairs(a.reserved) do
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
  local reserved = pack_reserved(a)
  local whole = write(SENDER, a.next_expiry, expiry_of_keys(a), at_least_0(a.open), SENDER_SIZE + #reserved,
    at_least_0(a.unseen), a.oldest_seen, a.spilled and 1 or 0, m.total, t.total, a.shards, at_least_0(a.stored), t.forgotten,
    m.n, m.oldest, m.last, m.count, t.n, t.oldest, t.last, t.count) .. reserved
  save(a, whole, a.had == 0)
end
