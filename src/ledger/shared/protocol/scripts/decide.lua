-- Whether a request fits, against all limits of a transaction at once. A limit is checked only if the request adds to its usage:
-- what was let through stays let through.
--
-- Limits are numbered: 1 the user's messages, 2 the user's unique recipients, 3 and 4 the same of the login, 5 the customer's
-- recipients in ten minutes, 6 in a day.
local NOTHING = {}

-- The first argument of reserve, look and commit: flags (1 there is a user, 2 there is a login, 4 report usage, 8 report exactly what
-- is reserved, too); bits of limits in shadow, from the first; how long a reservation lasts (ms); the maximum of each limit.
local function parameters()
  local p = { max = {} }
  p.who, p.shadow, p.timeout, p.max[1], p.max[2], p.max[3], p.max[4], p.max[5], p.max[6] =
    read('>I1I1I6I6I6I6I6I6I6', ARGV[1])
  return p
end

local function keys_in(packed)
  local keys = {}
  for place = 1, #packed, 8 do keys[#keys + 1] = sub(packed, place, place + 7) end
  return keys
end

-- The accounts of the user and of the login, if any: {first limit, account}. Also finds the transaction's reservation.
local function open_senders(who, c, id)
  local senders, place = {}, 3
  if who % 2 == 1 then
    senders[1], place = { 1, open_sender(KEYS[3], KEYS[4], id) }, 5
  end
  if who % 4 >= 2 then senders[#senders + 1] = { 3, open_sender(KEYS[place], KEYS[place + 1], id) } end
  local reservation
  if senders[1] then reservation = senders[1][2].reserved['t' .. id] else reservation = reservation_without_sender(c, id) end
  if reservation then
    local m = { expires = read('>I6', reservation), keys = sub(reservation, 7), n = (#reservation - 6) / 8, has = {} }
    for _, key in ipairs(keys_in(m.keys)) do m.has[key] = true end
    c.reservation = m
  end
  return senders
end

-- Reads the reservations of some recipients on all accounts.
local function look_up(senders, keys)
  for _, sender in ipairs(senders) do look_up_reserved(sender[2], keys) end
end

-- Adds to the answer, flat: limit, used, reserved, own, when it fits (ms; -1: never). A limit in shadow is negative.
local function standing(answer, p, limit, used, reserved, own, w, without)
  local max = p.max[limit]
  local fits = own > max and -1 or falls_to(w, max - own, now, without)
  local is_shadow = floor(p.shadow / 2 ^ (limit - 1)) % 2 == 1
  if not is_shadow then answer.refuses = true end
  local n = #answer
  answer[n + 1], answer[n + 2], answer[n + 3], answer[n + 4], answer[n + 5] =
    is_shadow and -limit or limit, used, reserved, own, fits
end

local function different_recipients(answer, p, limit, a, reservation, keys)
  local counted, newcomers = a.times.total + a.unseen, 0
  if counted + #keys <= p.max[limit] then return end
  for _, key in ipairs(keys) do
    if not a.reserved['k' .. key] and not seen(a, key) then newcomers = newcomers + 1 end
  end
  if newcomers == 0 or counted + newcomers <= p.max[limit] then return end
  -- Those that the transaction itself names are its own, whether they were seen before or not.
  local own, without, unseen = {}, {}, a.unseen
  if reservation then
    own = keys_in(reservation.keys)
    look_up_reserved(a, own)
  end
  for _, key in ipairs(keys) do own[#own + 1] = key end
  for _, key in ipairs(own) do
    local at = seen(a, key)
    if at then
      without[#without + 1] = at
    elseif a.reserved['k' .. key] then
      unseen = unseen - 1
    end
  end
  standing(answer, p, limit, a.times.total - #without, unseen, #own, a.times, without)
end

-- `keys`: recipients that the transaction has not reserved yet; `more`: how many more recipients count for the customer.
local function decide(p, c, senders, keys, more)
  local answer, reservation = { now }, c.reservation
  for _, sender in ipairs(senders) do
    local limit, a = sender[1], sender[2]
    if not reservation and a.messages.total + a.open >= p.max[limit] then
      standing(answer, p, limit, a.messages.total, a.open, 1, a.messages, NOTHING)
    end
    different_recipients(answer, p, limit + 1, a, reservation, keys)
  end
  if more > 0 then
    local reserved = reservation and reservation.n or 0
    for limit = 5, 6 do
      local w = limit == 5 and c.ten_minutes or c.day
      if w.total + c.reserved + more > p.max[limit] then
        standing(answer, p, limit, w.total, c.reserved - reserved, reserved + more, w, NOTHING)
      end
    end
  end
  return answer
end

-- Of each limit: its number (1), what is used, what is used and reserved (6 each).
local function usage_report(c, senders)
  local entries = {}
  local function add_limit(limit, used, reserved)
    entries[#entries + 1] = write('>I1I6I6', limit, used, used + at_least_0(reserved))
  end
  for _, sender in ipairs(senders) do
    local limit, a = sender[1], sender[2]
    add_limit(limit, a.messages.total, a.open)
    add_limit(limit + 1, a.times.total, a.unseen)
  end
  add_limit(5, c.ten_minutes.total, c.reserved)
  add_limit(6, c.day.total, c.reserved)
  return table.concat(entries)
end
