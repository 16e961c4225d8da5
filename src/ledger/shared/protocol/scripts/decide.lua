-- Whether it fits: all limits of a transaction at once. A limit is asked only if the request adds to it: what was let
-- through stays let through.
--
-- Limits have the numbers 1 user's messages, 2 user's different recipients, 3 and 4 the same of the login, 5 the customer's
-- recipients in ten minutes, 6 in a day.
local NOTHING = {}

-- First argument of what decides: 1 there is a user, + 2 there is a login, + 4 tell how much is used, + 8 tell exactly how
-- much is held, too; bits of limits in shadow, from the first; how long a reservation holds (ms); the maximum of each limit.
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

-- The accounts of the user and of the login, if there are any: {first limit, account}. Finds what the transaction holds.
local function open_senders(who, c, id)
  local senders, place = {}, 3
  if who % 2 == 1 then
    senders[1], place = { 1, open_sender(KEYS[3], KEYS[4], id) }, 5
  end
  if who % 4 >= 2 then senders[#senders + 1] = { 3, open_sender(KEYS[place], KEYS[place + 1], id) } end
  local mine
  if senders[1] then mine = senders[1][2].held['t' .. id] else mine = own_transaction(c, id) end
  if mine then
    local m = { ends = read('>I6', mine), keys = sub(mine, 7), n = (#mine - 6) / 8, has = {} }
    for _, key in ipairs(keys_in(m.keys)) do m.has[key] = true end
    c.mine = m
  end
  return senders
end

-- What is known of some recipients.
local function look_up(senders, keys)
  for _, sender in ipairs(senders) do look_up_held(sender[2], keys) end
end

-- {limit, used, reserved, own, when it fits (ms; -1: never)}, flat; a limit in shadow is negative.
local function standing(answer, p, limit, used, reserved, own, w, without)
  local max = p.max[limit]
  local fits = own > max and -1 or falls_to(w, max - own, now, without)
  local is_shadow = floor(p.shadow / 2 ^ (limit - 1)) % 2 == 1
  if not is_shadow then answer.refuses = true end
  local n = #answer
  answer[n + 1], answer[n + 2], answer[n + 3], answer[n + 4], answer[n + 5] =
    is_shadow and -limit or limit, used, reserved, own, fits
end

local function different_recipients(answer, p, limit, a, mine, keys)
  local counted, newcomers = a.times.total + a.fresh, 0
  if counted + #keys <= p.max[limit] then return end
  for _, key in ipairs(keys) do
    if not a.held['k' .. key] and not seen(a, key) then newcomers = newcomers + 1 end
  end
  if newcomers == 0 or counted + newcomers <= p.max[limit] then return end
  -- Those that the transaction itself names are its own, whether they were seen before or not.
  local own, without, fresh = {}, {}, a.fresh
  if mine then
    own = keys_in(mine.keys)
    look_up_held(a, own)
  end
  for _, key in ipairs(keys) do own[#own + 1] = key end
  for _, key in ipairs(own) do
    local at = seen(a, key)
    if at then
      without[#without + 1] = at
    elseif a.held['k' .. key] then
      fresh = fresh - 1
    end
  end
  standing(answer, p, limit, a.times.total - #without, fresh, #own, a.times, without)
end

-- `keys`: recipients that the transaction does not hold yet; `more`: how many more the customer is to send to.
local function decide(p, c, senders, keys, more)
  local answer, mine = { now }, c.mine
  for _, sender in ipairs(senders) do
    local limit, a = sender[1], sender[2]
    if not mine and a.messages.total + a.open >= p.max[limit] then
      standing(answer, p, limit, a.messages.total, a.open, 1, a.messages, NOTHING)
    end
    different_recipients(answer, p, limit + 1, a, mine, keys)
  end
  if more > 0 then
    local held = mine and mine.n or 0
    for limit = 5, 6 do
      local w = limit == 5 and c.ten_minutes or c.day
      if w.total + c.held + more > p.max[limit] then
        standing(answer, p, limit, w.total, c.held - held, held + more, w, NOTHING)
      end
    end
  end
  return answer
end

-- How much of each limit is counted, and how much counted and held: its number (1), both (6 each).
local function told(c, senders)
  local parts = {}
  local function tell(limit, used, held)
    parts[#parts + 1] = write('>I1I6I6', limit, used, used + at_least_0(held))
  end
  for _, sender in ipairs(senders) do
    local limit, a = sender[1], sender[2]
    tell(limit, a.messages.total, a.open)
    tell(limit + 1, a.times.total, a.fresh)
  end
  tell(5, c.ten_minutes.total, c.held)
  tell(6, c.day.total, c.held)
  return table.concat(parts)
end
