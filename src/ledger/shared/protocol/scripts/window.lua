-- A count over a rolling window: exact by the second while it has few entries; beyond that, neighbours in one bucket of a 120th of
-- the window are merged and keep the later time. So a count may expire late, by less than 1 % of the window, but never early.
--
-- In the account: how many entries there are before the last one, the total, the oldest entry's second, the last entry's second and
-- count. In the account's second key: the entries before the last one, 8 bytes each (second, count). An entry has what was counted
-- after the second of the entry before it, up to its own.
local call, floor, sub = redis.call, math.floor, string.sub
local write, read = struct.pack, struct.unpack

local now

local DAY, TEN_MINUTES = 86400, 600
local NEVER = 4294967295
local MOST = 4294967295
local EXACT_ENTRIES, BUCKETS = 64, 120

local function window(seconds, field, account)
  local w = { seconds = seconds, field = field, account = account, n = 0, total = 0, oldest = NEVER, last = 0, count = 0 }
  w.forgotten = 0
  return w
end

local function entries(w)
  if not w.list then w.list = w.n > 0 and call('HGET', w.account.more, w.field) or '' end
  return w.list
end

local function rewrite(w, list, n)
  w.list, w.n, w.changed = list, n, true
end

-- Drops what has left the window.
local function forget(w, now)
  local horizon = floor(now / 1000) - w.seconds
  if w.oldest > horizon then return end
  local list, gone = entries(w), 0
  while gone < w.n do
    local at, count = read('>I4I4', list, gone * 8 + 1)
    if at > horizon then break end
    w.total, w.forgotten, gone = w.total - count, at, gone + 1
  end
  if gone > 0 then rewrite(w, sub(list, gone * 8 + 1), w.n - gone) end
  if w.n > 0 then
    w.oldest = read('>I4', w.list)
  elseif w.last > horizon then
    w.oldest = w.last
  else
    w.total, w.forgotten, w.oldest, w.last, w.count = 0, math.max(w.forgotten, w.last), NEVER, 0, 0
  end
end

local function same_bucket(w, a, b)
  local bucket = w.seconds / BUCKETS
  return floor(a / bucket) == floor(b / bucket)
end

-- The number of the entry, from 0, that has what was counted at a second; n is the last one.
local function covering(w, at)
  local list, low, high = entries(w), 0, w.n
  while low < high do
    local middle = floor((low + high) / 2)
    if read('>I4', list, middle * 8 + 1) < at then low = middle + 1 else high = middle end
  end
  return low
end

local function replace(w, place, at, count)
  local list = entries(w)
  rewrite(w, sub(list, 1, place * 8) .. write('>I4I4', at, count) .. sub(list, place * 8 + 9), w.n)
end

-- Counts at a second, even if that is before others.
local function add(w, at, count)
  count = math.min(count, MOST)
  w.total = w.total + count
  if w.last == 0 then
    w.last, w.count, w.oldest = at, count, at
  elseif at >= w.last then
    local merges = at == w.last or (w.n + 1 >= EXACT_ENTRIES and same_bucket(w, at, w.last))
    if merges and w.count + count <= MOST then
      w.last, w.count = at, w.count + count
      if w.n == 0 then w.oldest = at end
    else
      rewrite(w, entries(w) .. write('>I4I4', w.last, w.count), w.n + 1)
      w.last, w.count = at, count
    end
  else
    local place = covering(w, at)
    local second, there = w.last, w.count
    if place < w.n then second, there = read('>I4I4', w.list, place * 8 + 1) end
    if same_bucket(w, at, second) and there + count <= MOST then
      if place < w.n then replace(w, place, second, there + count) else w.count = there + count end
    else
      local list = entries(w)
      rewrite(w, sub(list, 1, place * 8) .. write('>I4I4', at, count) .. sub(list, place * 8 + 1), w.n + 1)
      if place == 0 then w.oldest = at end
    end
  end
end

-- Uncounts one that was counted at a second that is within the window.
local function remove_one(w, at)
  local place = covering(w, at)
  if place < w.n then
    local second, count = read('>I4I4', w.list, place * 8 + 1)
    if count == 0 then return end
    replace(w, place, second, count - 1)
  else
    if w.count == 0 then return end
    w.count = w.count - 1
  end
  w.total = w.total - 1
end

-- When at most `allowed` will be left, not counting some at the seconds `without`.
local function falls_to(w, allowed, now, without)
  local left, less = w.total - #without, {}
  if left <= allowed then return now end
  for _, at in ipairs(without) do
    local place = covering(w, at)
    less[place] = (less[place] or 0) + 1
  end
  local list = entries(w)
  for place = 0, w.n do
    local at, count = w.last, w.count
    if place < w.n then at, count = read('>I4I4', list, place * 8 + 1) end
    left = left - count + (less[place] or 0)
    if left <= allowed then return (at + w.seconds) * 1000 end
  end
  return now
end

local function clear(w)
  rewrite(w, '', 0)
  w.total, w.oldest, w.last, w.count = 0, NEVER, 0, 0
end
