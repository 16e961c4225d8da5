-- Moves what was counted to another time: to where the server's clock was set, or out of a future that it showed by mistake. Nothing
-- stays later than now.
local LONGEST_RESERVATION = DAY * 1000

-- When something is counted that was counted at a second.
local function moved_second(at, by)
  return math.max(1, math.min(at + by, floor(now / 1000) + 1))
end

-- Neighbours that come to lie in the same second become one entry.
local function move_window(w, by)
  if w.last == 0 then return end
  local list, moved = entries(w), {}
  for place = 0, w.n do
    local at, count = w.last, w.count
    if place < w.n then at, count = read('>I4I4', list, place * 8 + 1) end
    at = moved_second(at, by)
    local before = moved[#moved]
    if before and before.at == at and before.count + count <= MOST then
      before.count = before.count + count
    else
      moved[#moved + 1] = { at = at, count = count }
    end
  end
  local last = table.remove(moved)
  for place, entry in ipairs(moved) do moved[place] = write('>I4I4', entry.at, entry.count) end
  rewrite(w, table.concat(moved), #moved)
  w.last, w.count = last.at, last.count
  w.oldest = w.n > 0 and read('>I4', w.list) or w.last
end

-- No reservation expires so late, unless it was made at a wrong time.
local function is_too_late(expires)
  return expires > now + LONGEST_RESERVATION + MAX_AHEAD
end

-- A sender's recipients.
local function move_recipients(a, by)
  for number = 0, a.stored > 0 and a.shards - 1 or -1 do
    local list, left = shard(a, number), {}
    for place = 1, #list, 12 do
      local at = read('>I4', list, place + 8)
      if at > a.times.forgotten then
        left[#left + 1] = sub(list, place, place + 7) .. write('>I4', moved_second(at, by))
      end
    end
    a.stored = a.stored - (#list / 12 - #left)
    set_shard(a, number, table.concat(left))
  end
  a.times.forgotten = 0
end
