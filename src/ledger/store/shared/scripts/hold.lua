-- Holds a recipient of a transaction that ends by itself at `ends`.
local function hold(a, key, ends)
  local field = 'k' .. key
  local held = a.got[field]
  if held then
    put(a, field, held .. write('>I6', ends))
  else
    local at = seen(a, key) or 0
    if at == 0 then a.fresh = a.fresh + 1 else a.known = earliest(a.known, at) end
    put(a, field, write('>I4I6', at, ends))
  end
  a.due = earliest(a.due, ends)
end

-- Gives a held recipient back, as seen at a second; 0: it was not.
local function let_go(a, key, ends, at)
  local field = 'k' .. key
  local held = a.got[field]
  if not held then return end
  local was_seen, holders = held_key(held)
  if ends then
    for place = 1, #holders, 6 do
      if read('>I6', holders, place) == ends then
        holders = sub(holders, 1, place - 1) .. sub(holders, place + 6)
        break
      end
    end
  end
  if was_seen == 0 and (holders == '' or at > 0) then a.fresh = a.fresh - 1 end
  if holders == '' then
    put(a, field, false)
  else
    was_seen = math.max(was_seen, at)
    if was_seen > 0 then a.known = earliest(a.known, was_seen) end
    put(a, field, write('>I4', was_seen) .. holders)
  end
end

-- Gives everything back that the transaction holds.
local function release(c, senders, id)
  local mine = c.mine
  c.held = c.held - mine.n
  put(c, 'o' .. id, false)
  for _, sender in ipairs(senders) do
    local a = sender[2]
    if a.got['m' .. id] then
      a.open = a.open - 1
      put(a, 'm' .. id, false)
    end
    for key in pairs(mine.has) do let_go(a, key, mine.ends, 0) end
  end
end

local function save_all(c, senders)
  save_customer(c)
  for _, sender in ipairs(senders) do save_sender(sender[2]) end
end
