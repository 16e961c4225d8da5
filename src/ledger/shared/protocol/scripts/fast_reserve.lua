-- When keys that are in use now expire; whether that must be renewed.
local function expiry_of_keys(keys_until, now)
  if keys_until * 1000 >= now + TTL_RENEWED_BELOW * 1000 then return keys_until, false end
  return floor(now / 1000) + TTL, true
end

-- Renews the expiry of an account's keys.
local function renew(k)
  call('EXPIRE', keys[k], TTL)
  call('EXPIRE', keys[k + 1], TTL)
end

-- A sender's account with one more reserved recipient. Also returns when the reservation expires; whether it is new; whether the
-- expiry of the account's keys must be renewed.
local function with_reserved(u, messages_max, uniques_max, id, key, now)
  local next_expiry, keys_until, open, size, unseen, oldest_seen, spilled, messages, uniques, _, stored, forgotten =
    read('>I6I4I4I3I4I4I1I6I6I3I4I4', u)
  if next_expiry <= now or oldest_seen <= forgotten or spilled > 0 or uniques + unseen >= uniques_max
    or #u > size + TOO_LONG or size > 1000 then return end
  local transaction, recipient, expires = '\13t' .. id, '\9k' .. key, nil
  local reserved, is_first = '', true
  if size > 77 then
    reserved = sub(u, 78, size)
    if find(reserved, recipient, 1, true) then return end
    local place = find(reserved, transaction, 1, true)
    if place then
      local length
      length, expires = read('>I2I6', reserved, place + 14)
      reserved = sub(reserved, 1, place + 13) .. write('>I2', length + 8) .. sub(reserved, place + 16, place + 15 + length) .. key
        .. sub(reserved, place + 16 + length)
      is_first = false
    end
  end
  -- While there is room for one more, nobody needs to know whether it was seen.
  local seen = stored > 0 and MAX_COUNT or 0
  unseen = unseen + 1
  if is_first then
    if messages + open >= messages_max then return end
    expires, open = now + timeout, open + 1
    reserved = reserved .. transaction .. write('>I2I6', 14, expires) .. key .. recipient .. write('>I2I4I6', 10, seen, expires)
  else
    reserved = reserved .. recipient .. write('>I2I4I6', 10, seen, expires)
  end
  if expires < next_expiry then next_expiry = expires end
  local is_old
  keys_until, is_old = expiry_of_keys(keys_until, now)
  return write('>I6I4I4I3I4I4I1', next_expiry, keys_until, open, 77 + #reserved, unseen, oldest_seen, 0) .. sub(u, 27, 77) .. reserved, expires, is_first, is_old
end

-- A customer's account with one more reserved recipient of a reservation that expires then.
local function customer_with_reserved(c, now, keys_until, reserved, size, daemons, expires, is_first)
  local from = 61 + daemons
  local last = size > from and read('>I6', c, size - 9) or 0
  if last < expires then
    if not is_first or size - from >= 319 then return end
    return write('>I6I4I4I3', now, keys_until, reserved + 1, size + 10) .. sub(c, 18, size) .. write('>I6I4', expires, 1)
  end
  local place = last == expires and size - 9 or place_in(c, write('>I6', expires), from, 10)
  if not place or place > size then return end
  return write('>I6I4I4I3', now, keys_until, reserved + 1, size) .. sub(c, 18, place + 5) .. write('>I4', read('>I4', c, place + 6) + 1)
    .. sub(c, place + 10, size)
end

local function fast_reserve(k, a)
  read_parameters(arguments[a])
  local senders, id, key = who, arguments[a + 1], arguments[a + 2]
  local c_key, u_key = keys[k], keys[k + 2]
  local c, u, l = accounts(k, senders)
  if not (c and u) then return end
  local latest, keys_until, reserved, size, daemons, day, peak = read('>I6I4I4I3I3I6I6', c)
  local now = time()
  if now + MAX_AHEAD < latest then return end
  if now < latest then now = latest end
  if day + reserved >= max_6 or peak + reserved >= max_5 or #c > size + TOO_LONG
    or (size > 60 + daemons and read('>I6', c, 61 + daemons) <= now) then return end
  local messages_max, uniques_max = max_1, max_2
  if senders == 2 then messages_max, uniques_max = max_3, max_4 end
  local after, expires, is_first, is_u_old = with_reserved(u, messages_max, uniques_max, id, key, now)
  if not after then return end
  local of_login, is_l_old
  if senders == 3 then
    local login_expires, is_login_first
    if not l then return end
    of_login, login_expires, is_login_first, is_l_old = with_reserved(l, max_3, max_4, id, key, now)
    if not of_login or login_expires ~= expires or is_login_first ~= is_first then return end
  end
  local is_old
  keys_until, is_old = expiry_of_keys(keys_until, now)
  local of_customer = customer_with_reserved(c, now, keys_until, reserved, size, daemons, expires, is_first)
  if not of_customer then return end
  call('SETRANGE', c_key, '0', of_customer)
  if is_old then renew(k) end
  call('SETRANGE', u_key, '0', after)
  if is_u_old then renew(k + 2) end
  if of_login then
    call('SETRANGE', keys[k + 4], '0', of_login)
    if is_l_old then renew(k + 4) end
  end
  return now
end
