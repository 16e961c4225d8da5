-- Until when keys are kept that are in use now; whether that is new.
local function kept_until(kept, now)
  if kept * 1000 >= now + KEPT_AGAIN * 1000 then return kept, false end
  return floor(now / 1000) + KEPT, true
end

-- Keeps the keys of an account for longer.
local function keep(k)
  call('EXPIRE', keys[k], KEPT)
  call('EXPIRE', keys[k + 1], KEPT)
end

-- A sender's account with one more held recipient; when the transaction ends; whether it is the transaction's first; whether the
-- account's keys are to be kept for longer.
local function holding(u, messages_max, uniques_max, id, key, now)
  local due, kept, open, size, fresh, known, spilled, messages, uniques, _, stored, forgotten =
    read('>I6I4I4I3I4I4I1I6I6I3I4I4', u)
  if due <= now or known <= forgotten or spilled > 0 or uniques + fresh >= uniques_max
    or #u > size + TOO_LONG or size > 1000 then return end
  local transaction, recipient, ends = '\13t' .. id, '\9k' .. key, nil
  local held, is_first = '', true
  if size > 77 then
    held = sub(u, 78, size)
    if find(held, recipient, 1, true) then return end
    local place = find(held, transaction, 1, true)
    if place then
      local length
      length, ends = read('>I2I6', held, place + 14)
      held = sub(held, 1, place + 13) .. write('>I2', length + 8) .. sub(held, place + 16, place + 15 + length) .. key
        .. sub(held, place + 16 + length)
      is_first = false
    end
  end
  -- Whether it was seen need not be known while there is room for one more.
  local seen = stored > 0 and MOST_COUNTED or 0
  fresh = fresh + 1
  if is_first then
    if messages + open >= messages_max then return end
    ends, open = now + timeout, open + 1
    held = held .. transaction .. write('>I2I6', 14, ends) .. key .. recipient .. write('>I2I4I6', 10, seen, ends)
  else
    held = held .. recipient .. write('>I2I4I6', 10, seen, ends)
  end
  if ends < due then due = ends end
  local is_old
  kept, is_old = kept_until(kept, now)
  return write('>I6I4I4I3I4I4I1', due, kept, open, 77 + #held, fresh, known, 0) .. sub(u, 27, 77) .. held, ends, is_first, is_old
end

-- A customer's account with one more held recipient of a transaction that ends then.
local function customer_holding(c, now, kept, held, size, daemons, ends, is_first)
  local from = 61 + daemons
  local last = size > from and read('>I6', c, size - 9) or 0
  if last < ends then
    if not is_first or size - from >= 319 then return end
    return write('>I6I4I4I3', now, kept, held + 1, size + 10) .. sub(c, 18, size) .. write('>I6I4', ends, 1)
  end
  local place = last == ends and size - 9 or place_in(c, write('>I6', ends), from, 10)
  if not place or place > size then return end
  return write('>I6I4I4I3', now, kept, held + 1, size) .. sub(c, 18, place + 5) .. write('>I4', read('>I4', c, place + 6) + 1)
    .. sub(c, place + 10, size)
end

local function usual_reserve(k, a)
  read_parameters(arguments[a])
  local senders, id, key = who, arguments[a + 1], arguments[a + 2]
  local c_key, u_key = keys[k], keys[k + 2]
  local c, u, l = accounts(k, senders)
  if not (c and u) then return end
  local latest, kept, held, size, daemons, day, peak = read('>I6I4I4I3I3I6I6', c)
  local now = time()
  if now < latest then now = latest end
  if day + held >= max_6 or peak + held >= max_5 or #c > size + TOO_LONG
    or (size > 60 + daemons and read('>I6', c, 61 + daemons) <= now) then return end
  local messages_max, uniques_max = max_1, max_2
  if senders == 2 then messages_max, uniques_max = max_3, max_4 end
  local after, ends, is_first, is_u_old = holding(u, messages_max, uniques_max, id, key, now)
  if not after then return end
  local of_login, is_l_old
  if senders == 3 then
    local login_ends, is_login_first
    if not l then return end
    of_login, login_ends, is_login_first, is_l_old = holding(l, max_3, max_4, id, key, now)
    if not of_login or login_ends ~= ends or is_login_first ~= is_first then return end
  end
  local is_old
  kept, is_old = kept_until(kept, now)
  local of_customer = customer_holding(c, now, kept, held, size, daemons, ends, is_first)
  if not of_customer then return end
  call('SETRANGE', c_key, '0', of_customer)
  if is_old then keep(k) end
  call('SETRANGE', u_key, '0', after)
  if is_u_old then keep(k + 2) end
  if of_login then
    call('SETRANGE', keys[k + 4], '0', of_login)
    if is_l_old then keep(k + 4) end
  end
  return now
end
