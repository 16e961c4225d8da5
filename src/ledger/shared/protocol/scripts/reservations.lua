-- Holds a recipient of a transaction that ends by itself at `ends`.
local function hold(a, key, ends)
  local field = 'k' .. key
  local held = a.held[field]
  if held then
    put_held(a, field, held .. write('>I6', ends))
  else
    local at = seen(a, key) or 0
    if at == 0 then a.fresh = a.fresh + 1 else a.known = earliest(a.known, at) end
    put_held(a, field, write('>I4I6', at, ends))
  end
  a.due = earliest(a.due, ends)
end

-- Gives a held recipient back, as seen at a second; 0: it was not.
local function let_go(a, key, ends, at)
  local field = 'k' .. key
  local held = a.held[field]
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
    put_held(a, field, false)
  else
    was_seen = math.max(was_seen, at)
    if was_seen > 0 then a.known = earliest(a.known, was_seen) end
    put_held(a, field, write('>I4', was_seen) .. holders)
  end
end

-- Ends a transaction: what it has of the customer, and its messages.
local function let_go_of_transaction(c, senders, id)
  local mine = c.mine
  c.held = c.held - mine.n
  end_earlier(c, mine.ends, mine.n)
  if #senders == 0 then put(c, 't' .. id, false) end
  for _, sender in ipairs(senders) do
    local a = sender[2]
    if a.held['t' .. id] then
      a.open = a.open - 1
      put_held(a, 't' .. id, false)
    end
  end
end

-- Gives everything back that the transaction holds.
local function release(c, senders, id)
  let_go_of_transaction(c, senders, id)
  for _, sender in ipairs(senders) do
    for key in pairs(c.mine.has) do let_go(sender[2], key, c.mine.ends, 0) end
  end
end

local function save_all(c, senders)
  save_customer(c)
  for _, sender in ipairs(senders) do save_sender(sender[2]) end
end
