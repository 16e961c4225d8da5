-- The oldest, the last and its count after `count` more at a second; nil: that needs the entries before the last.
local function merged(n, oldest, last, counted, seconds, at, count)
  if last == 0 or at < last or counted + count > 4294967295 then return end
  if at ~= last and not (n >= 63 and floor(at * 120 / seconds) == floor(last * 120 / seconds)) then return end
  return n == 0 and at or oldest, at, counted + count
end

local function usual_commit()
  local who, _, _, messages_max, uniques_max, _, _, peak_max, day_max = read('>I1I1I6I6I6I6I6I6I6', ARGV[1])
  local unnamed, age, nonce, unsettled = read('>I4I6I6I6', ARGV[4])
  if who % 4 ~= 1 or unnamed > 0 or age > 0 or #ARGV[3] > 800 then return end
  local id, daemon, n = ARGV[2], 'D' .. ARGV[5], #ARGV[3] / 8
  local of_customer = call('HMGET', KEYS[1], 's', 'o' .. id, daemon)
  local s, mine, counted = of_customer[1], of_customer[2], of_customer[3]
  -- It holds just what the message has.
  if not (s and mine and counted) or n == 0 or sub(mine, 7) ~= ARGV[3] then return end
  local settled = read('>I6', counted, 5)
  if nonce < settled or place_in(counted, sub(ARGV[4], 11, 16), 11, 6) then return end
  local names = { 's', 'u', 'm' .. id }
  for i = 1, n do names[i + 3] = 'k' .. sub(ARGV[3], i * 8 - 7, i * 8) end
  local of_user = call('HMGET', KEYS[2], unpack(names))
  local us, u = of_user[1], of_user[2]
  if not (us and u and of_user[3]) then return end

  local latest, due, kept, held, day_n, day, day_oldest, day_last, day_count, peak_n, peak, peak_oldest, peak_last, peak_count =
    read('>I6I6I4I4I2I6I4I4I4I2I6I4I4I4', s)
  local user_due, user_kept, open, messages_n, messages, messages_oldest, messages_last, messages_count =
    read('>I6I4I4I2I6I4I4I4', us)
  local fresh, known, shards, stored, forgotten, uniques_n, uniques, uniques_oldest, uniques_last, uniques_count =
    read('>I4I4I3I4I4I2I6I4I4I4', u)
  local now = math.max(time(), latest)
  local kept_for, second = now / 1000 + 90000, floor(now / 1000)
  if due <= now or user_due <= now or known <= forgotten or kept < kept_for or user_kept < kept_for then return end
  local a_day_ago = second - 86400
  if day_oldest <= a_day_ago or peak_oldest <= second - 600 or messages_oldest <= a_day_ago or uniques_oldest <= a_day_ago
    or stored == 0 then return end

  local at = math.ceil(now / 1000)
  day_oldest, day_last, day_count = merged(day_n, day_oldest, day_last, day_count, 86400, at, n)
  peak_oldest, peak_last, peak_count = merged(peak_n, peak_oldest, peak_last, peak_count, 600, at, n)
  messages_oldest, messages_last, messages_count = merged(messages_n, messages_oldest, messages_last, messages_count, 86400, at, 1)
  if not (day_oldest and peak_oldest and messages_oldest) then return end

  -- The recipients: seen at other times before, or not at all.
  local shard, list, list_changed = {}, nil, false
  for i = 1, n do
    local key, holders = sub(ARGV[3], i * 8 - 7, i * 8), of_user[i + 3]
    -- Held by this transaction alone.
    if not holders or #holders ~= 10 then return end
    if read('>I4', holders) == 0 then fresh = fresh - 1 end
    local number = usual_shard(shards, key)
    local remembered = shard[number] or call('HGET', KEYS[3], number) or ''
    local place = place_in(remembered, key, 1, 12)
    local seen = place and read('>I4', remembered, place + 8)
    if seen and seen > forgotten then
      if seen > at then return end
      -- One less at that second.
      local low, high = 0, uniques_n
      if high > 0 and not list then list = call('HGET', KEYS[2], 'n') end
      while low < high do
        local middle = floor((low + high) / 2)
        if read('>I4', list, middle * 8 + 1) < seen then low = middle + 1 else high = middle end
      end
      if low < uniques_n then
        local last, there = read('>I4I4', list, low * 8 + 1)
        if there == 0 then return end
        list = sub(list, 1, low * 8) .. write('>I4I4', last, there - 1) .. sub(list, low * 8 + 9)
        list_changed = true
      else
        if uniques_count == 0 then return end
        uniques_count = uniques_count - 1
      end
      uniques = uniques - 1
    end
    if place then
      remembered = sub(remembered, 1, place + 7) .. write('>I4', at) .. sub(remembered, place + 12)
    else
      if #remembered >= 288 then return end
      remembered, stored = remembered .. key .. write('>I4', at), stored + 1
      if stored > 24 * shards then return end
    end
    shard[number] = remembered
  end
  uniques_oldest, uniques_last, uniques_count =
    merged(uniques_n, uniques_oldest, uniques_last, uniques_count, 86400, at, n)
  if not uniques_oldest then return end
  day, peak, messages, uniques = day + n, peak + n, messages + 1, uniques + n
  held, open = held - n, open - 1
  if held < 0 or open < 0 or fresh < 0 or stored > 2 * uniques + 24 or (shards > 1 and stored < 8 * shards) then return end

  -- Nonces that never come again go.
  if settled > unsettled then unsettled = settled end
  local first = 11
  while first < #counted and read('>I6', counted, first) < unsettled do first = first + 6 end
  call('HSET', KEYS[1], 's',
    write('>I6I6I4I4I2I6I4I4I4I2I6I4I4I4', now, due, kept, held, day_n, day, day_oldest, day_last, day_count, peak_n, peak,
      peak_oldest, peak_last, peak_count),
    daemon, write('>I4I6', second, unsettled) .. sub(counted, first) .. write('>I6', nonce))
  call('HDEL', KEYS[1], 'o' .. id)
  us = write('>I6I4I4I2I6I4I4I4', user_due, user_kept, open, messages_n, messages, messages_oldest, messages_last, messages_count)
  u = write('>I4I4I3I4I4I2I6I4I4I4', fresh, known, shards, stored, forgotten, uniques_n, uniques, uniques_oldest, uniques_last,
    uniques_count)
  if list_changed then
    call('HSET', KEYS[2], 's', us, 'u', u, 'n', list)
  else
    call('HSET', KEYS[2], 's', us, 'u', u)
  end
  call('HDEL', KEYS[2], unpack(names, 3))
  for number, remembered in pairs(shard) do call('HSET', KEYS[3], number, remembered) end

  if who < 4 then return now end
  local answer = { now }
  local function tell(limit, max, used, held_now)
    if max == 281474976710655 then return end
    local last = #answer
    answer[last + 1], answer[last + 2], answer[last + 3], answer[last + 4], answer[last + 5] = limit + 10, used + held_now, used, 0, 0
  end
  tell(1, messages_max, messages, open)
  tell(2, uniques_max, uniques, fresh)
  tell(5, peak_max, peak, held)
  tell(6, day_max, day, held)
  return #answer == 1 and now or answer
end
