-- A window without what has left it. Returns how many entries there are before the last one, the oldest second, the last second and
-- its count, the total; the entries, if some were dropped; the last second that was dropped.
local function without_old(more, field, horizon, n, last, count, total)
  local list, gone, forgotten = n > 0 and call('HGET', more, field) or nil, 0, 0
  while gone < n do
    local at, counted = read('>I4I4', list, gone * 8 + 1)
    if at > horizon then break end
    gone, total, forgotten = gone + 1, total - counted, at
  end
  if n > 0 then list = sub(list, gone * 8 + 1) end
  if gone < n then return n - gone, read('>I4', list), last, count, total, list, forgotten end
  if last > horizon then return 0, last, last, count, total, list, forgotten end
  return 0, MAX_COUNT, 0, 0, 0, list, last
end

-- A window with `count` more at a second. Returns the same; the entries as they were given, or with one more. nil: the second is not
-- at the window's end.
local function with_more(more, field, seconds, at, count, n, oldest, last, counted, total, list)
  if at < last or counted + count > MAX_COUNT then return end
  total = total + count
  if last == 0 then return 0, at, at, count, total, list end
  if at == last or (n >= 63 and floor(at * 120 / seconds) == floor(last * 120 / seconds)) then
    return n, n == 0 and at or oldest, at, counted + count, total, list
  end
  list = (list or n > 0 and call('HGET', more, field) or '') .. write('>I4I4', last, counted)
  return n + 1, oldest, at, count, total, list
end

-- The entries of a window with one less at a second; nil: none is counted there.
local function without_one(list, n, second)
  local low, high = 0, n
  while low < high do
    local middle = floor((low + high) / 2)
    if read('>I4', list, middle * 8 + 1) < second then low = middle + 1 else high = middle end
  end
  local last, there = read('>I4I4', list, low * 8 + 1)
  if there == 0 then return end
  return sub(list, 1, low * 8) .. write('>I4I4', last, there - 1) .. sub(list, low * 8 + 9)
end

-- A shard without entries that have left the window.
local function without_forgotten(shard, forgotten)
  local left = {}
  for place = 1, #shard, 12 do
    if read('>I4', shard, place + 8) > forgotten then left[#left + 1] = sub(shard, place, place + 11) end
  end
  return table.concat(left)
end

-- A sender's account without the reservation, with its message and recipients counted. Also returns when the reservation would have
-- expired; fields of the second key to set, with their values; messages used and reserved, unique recipients used and reserved.
local function counting(u, more, id, recipients, n, at, now)
  local next_expiry, keys_until, open, size, unseen, oldest_seen, spilled, messages, uniques, shards, stored, forgotten, messages_n,
    messages_oldest, messages_last, messages_count, uniques_n, uniques_oldest, uniques_last, uniques_count =
    read('>I6I4I4I3I4I4I1I6I6I3I4I4I2I4I4I4I2I4I4I4', u)
  local second = floor(now / 1000)
  local a_day_ago = second - 86400
  if next_expiry <= now or keys_until < second + TTL_AFTER_COMMIT or spilled > 0 or open < 1 or stored == 0 or #u > size + TOO_LONG then
    return
  end
  local messages_list, list, gone
  if messages_oldest <= a_day_ago then
    messages_n, messages_oldest, messages_last, messages_count, messages, messages_list =
      without_old(more, 'd', a_day_ago, messages_n, messages_last, messages_count, messages)
  end
  if uniques_oldest <= a_day_ago then
    uniques_n, uniques_oldest, uniques_last, uniques_count, uniques, list, gone =
      without_old(more, 'n', a_day_ago, uniques_n, uniques_last, uniques_count, uniques)
    if gone > forgotten then forgotten = gone end
  end
  if oldest_seen <= forgotten then return end

  -- Its reservation has exactly the message's recipients.
  local reserved, transaction = sub(u, 78, size), '\13t' .. id
  local place = find(reserved, transaction, 1, true)
  if not place then return end
  local length, expires = read('>I2I6', reserved, place + 14)
  if length ~= 6 + #recipients or sub(reserved, place + 22, place + 15 + length) ~= recipients then return end
  reserved = sub(reserved, 1, place - 1) .. sub(reserved, place + 16 + length)

  local fields = {}
  messages_n, messages_oldest, messages_last, messages_count, messages, messages_list =
    with_more(more, 'd', 86400, at, 1, messages_n, messages_oldest, messages_last, messages_count, messages, messages_list)
  if not messages_n then return end
  if messages_list then fields[1], fields[2] = 'd', messages_list end

  -- The recipients: seen at other times before, or not at all.
  local list_changed, place_of = list, nil
  for i = 1, n do
    local key = n == 1 and recipients or sub(recipients, i * 8 - 7, i * 8)
    -- Reserved by this transaction only.
    local entry = find(reserved, '\9k' .. key .. '\0\10', 1, true)
    if not entry then return end
    local was_seen = read('>I4', reserved, entry + 12)
    if was_seen == 0 or was_seen == MAX_COUNT then unseen = unseen - 1 end
    reserved = sub(reserved, 1, entry - 1) .. sub(reserved, entry + 22)
    local number, remembered, set = shard_name(shards, key), nil, nil
    if n > 1 then
      place_of = place_of or {}
      set = place_of[number]
    end
    if set then remembered = fields[set + 1] else remembered = call('HGET', more, number) or '' end
    local there = place_in(remembered, key, 1, 12)
    local seen = there and read('>I4', remembered, there + 8)
    if seen and seen > forgotten then
      if seen > at then return end
      -- One less at that second.
      if uniques_n > 0 and not list then list = call('HGET', more, 'n') end
      if uniques_n > 0 and seen <= read('>I4', list, uniques_n * 8 - 7) then
        list, list_changed = without_one(list, uniques_n, seen), true
        if not list then return end
      else
        if uniques_count == 0 then return end
        uniques_count = uniques_count - 1
      end
      uniques = uniques - 1
    end
    if there then
      remembered = sub(remembered, 1, there + 7) .. write('>I4', at) .. sub(remembered, there + 12)
    else
      if #remembered >= 288 and stored > uniques then
        local before = #remembered
        remembered = without_forgotten(remembered, forgotten)
        stored = stored - (before - #remembered) / 12
      end
      remembered, stored = remembered .. key .. write('>I4', at), stored + 1
      if stored > 24 * shards then return end
    end
    if not set then
      set = #fields + 1
      fields[set] = number
      if place_of then place_of[number] = set end
    end
    fields[set + 1] = remembered
  end
  local entries = uniques_n
  uniques_n, uniques_oldest, uniques_last, uniques_count, uniques, list =
    with_more(more, 'n', 86400, at, n, uniques_n, uniques_oldest, uniques_last, uniques_count, uniques, list)
  if not uniques_n then return end
  if list_changed or uniques_n > entries then
    local last = #fields
    fields[last + 1], fields[last + 2] = 'n', list
  end
  open = open - 1
  if unseen < 0 or stored > 2 * uniques + 24 or (shards > 1 and stored < 8 * shards) then return end
  -- The report must be exact, and nobody has looked whether some reserved recipients were seen.
  if who >= 8 and unseen > 0 and find(reserved, '\255\255\255\255', 1, true) then return end
  if reserved == '' then next_expiry, oldest_seen = NEVER_EXPIRES, MAX_COUNT end
  return write('>I6I4I4I3I4I4I1I6I6I3I4I4I2I4I4I4I2I4I4I4', next_expiry, keys_until, open, 77 + #reserved, unseen, oldest_seen, 0, messages, uniques,
    shards, stored, forgotten, messages_n, messages_oldest, messages_last, messages_count, uniques_n, uniques_oldest,
    uniques_last, uniques_count) .. reserved, expires, fields, messages, open, uniques, unseen
end

-- The daemons' part of a customer's account, which ends before `from`, with one more nonce. nil: it is there already, or retired, or
-- the daemon's first.
local function with_nonce(c, from, daemon, second, nonce, number, unsettled)
  local place = 61
  while place < from do
    local settled, count = read('>I6I3', c, place + 10)
    local first, beyond = place + 19, place + 19 + count * 6
    if sub(c, place, place + 5) == daemon then
      if number < settled then return end
      -- Drops retired nonces.
      if settled > unsettled then unsettled = settled end
      while first < beyond and read('>I6', c, first) < unsettled do first = first + 6 end
      local counted = first < beyond and sub(c, first, beyond - 1) or ''
      if place_in(counted, nonce, 1, 6) then return end
      return sub(c, 61, place + 5) .. write('>I4I6I3', second, unsettled, #counted / 6 + 1) .. counted .. nonce
        .. sub(c, beyond, from - 1)
    end
    place = beyond
  end
end

local function fast_commit(k, a)
  read_parameters(arguments[a])
  local id, recipients, message, daemon = arguments[a + 1], arguments[a + 2], arguments[a + 3], arguments[a + 4]
  local unnamed, age, number, unsettled = read('>I4I6I6I6', message)
  local n, senders = #recipients / 8, who % 4
  if n == 0 or n > 100 or unnamed > 0 or age > 0 then return end
  local c_key, u_key = keys[k], keys[k + 2]
  local c, u, l = accounts(k, senders)
  if not (c and u) then return end
  local latest, keys_until, reserved, size, daemons_size, day, peak, day_n, day_oldest, day_last, day_count, peak_n, peak_oldest,
    peak_last, peak_count = read('>I6I4I4I3I3I6I6I2I4I4I4I2I4I4I4', c)
  local now = time()
  if now + MAX_AHEAD < latest then return end
  if now < latest then now = latest end
  local second, at, from = floor(now / 1000), math.ceil(now / 1000), 61 + daemons_size
  if keys_until < second + TTL_AFTER_COMMIT or #c > size + TOO_LONG or size <= from or read('>I6', c, from) <= now
    or reserved < n then return end
  local daemons = with_nonce(c, from, daemon, second, sub(message, 11, 16), number, unsettled)
  if not daemons then return end
  local more, day_list, peak_list = keys[k + 1], nil, nil
  if day_oldest <= second - 86400 then
    day_n, day_oldest, day_last, day_count, day, day_list =
      without_old(more, 'd', second - 86400, day_n, day_last, day_count, day)
  end
  if peak_oldest <= second - 600 then
    peak_n, peak_oldest, peak_last, peak_count, peak, peak_list =
      without_old(more, 'p', second - 600, peak_n, peak_last, peak_count, peak)
  end
  day_n, day_oldest, day_last, day_count, day, day_list =
    with_more(more, 'd', 86400, at, n, day_n, day_oldest, day_last, day_count, day, day_list)
  peak_n, peak_oldest, peak_last, peak_count, peak, peak_list =
    with_more(more, 'p', 600, at, n, peak_n, peak_oldest, peak_last, peak_count, peak, peak_list)
  if not (day_n and peak_n) then return end

  local after, expires, fields, messages, open, uniques, unseen = counting(u, keys[k + 3], id, recipients, n, at, now)
  if not after then return end
  local l_after, l_expires, l_fields, l_messages, l_open, l_uniques, l_unseen
  if senders == 3 then
    if not l then return end
    l_after, l_expires, l_fields, l_messages, l_open, l_uniques, l_unseen =
      counting(l, keys[k + 5], id, recipients, n, at, now)
    if not l_after or l_expires ~= expires then return end
  end

  local open_expiries = sub(c, from, size)
  local place = place_in(open_expiries, write('>I6', expires), 1, 10)
  if not place then return end
  local there = read('>I4', open_expiries, place + 6)
  if there < n then return end
  open_expiries = sub(open_expiries, 1, place - 1) .. (there > n and write('>I6I4', expires, there - n) or '') .. sub(open_expiries, place + 10)
  reserved = reserved - n
  call('SETRANGE', c_key, '0', write('>I6I4I4I3I3I6I6I2I4I4I4I2I4I4I4', now, keys_until, reserved, 60 + #daemons + #open_expiries, #daemons,
    day, peak, day_n, day_oldest, day_last, day_count, peak_n, peak_oldest, peak_last, peak_count) .. daemons .. open_expiries)
  if day_list then call('HSET', more, 'd', day_list) end
  if peak_list then call('HSET', more, 'p', peak_list) end
  call('SETRANGE', u_key, '0', after)
  call('HSET', keys[k + 3], unpack(fields))
  if l_after then
    call('SETRANGE', keys[k + 4], '0', l_after)
    call('HSET', keys[k + 5], unpack(l_fields))
  end

  if who < 4 then return now end
  local first = senders == 2 and 3 or 1
  local usage_report = write('>I1I6I6I1I6I6I1I6I6I1I6I6', first, messages, messages + open, first + 1, uniques, uniques + unseen,
    5, peak, peak + reserved, 6, day, day + reserved)
  if senders == 3 then
    usage_report = usage_report .. write('>I1I6I6I1I6I6', 3, l_messages, l_messages + l_open, 4, l_uniques, l_uniques + l_unseen)
  end
  return { now, usage_report }
end
