-- Reserves a recipient, until `expires`.
local function reserve_recipient(a, key, expires)
  local field = 'k' .. key
  local reserved = a.reserved[field]
  if reserved then
    put_reserved(a, field, reserved .. write('>I6', expires))
  else
    local at = seen(a, key) or 0
    if at == 0 then a.unseen = a.unseen + 1 else a.oldest_seen = earliest(a.oldest_seen, at) end
    put_reserved(a, field, write('>I4I6', at, expires))
  end
  a.next_expiry = earliest(a.next_expiry, expires)
end

-- Releases a reserved recipient. `at`: the second when it was sent to; 0: it was not.
local function release_recipient(a, key, expires, at)
  local field = 'k' .. key
  local reserved = a.reserved[field]
  if not reserved then return end
  local was_seen, holders = reserved_key(reserved)
  if expires then
    for place = 1, #holders, 6 do
      if read('>I6', holders, place) == expires then
        holders = sub(holders, 1, place - 1) .. sub(holders, place + 6)
        break
      end
    end
  end
  if was_seen == 0 and (holders == '' or at > 0) then a.unseen = a.unseen - 1 end
  if holders == '' then
    put_reserved(a, field, false)
  else
    was_seen = math.max(was_seen, at)
    if was_seen > 0 then a.oldest_seen = earliest(a.oldest_seen, was_seen) end
    put_reserved(a, field, write('>I4', was_seen) .. holders)
  end
end

-- Ends a reservation: the customer's recipients, and the messages.
local function end_reservation(c, senders, id)
  local reservation = c.reservation
  c.reserved = c.reserved - reservation.n
  remove_expiry(c, reservation.expires, reservation.n)
  if #senders == 0 then put(c, 't' .. id, false) end
  for _, sender in ipairs(senders) do
    local a = sender[2]
    if a.reserved['t' .. id] then
      a.open = a.open - 1
      put_reserved(a, 't' .. id, false)
    end
  end
end

-- Releases everything that the transaction has reserved.
local function release_reservation(c, senders, id)
  end_reservation(c, senders, id)
  for _, sender in ipairs(senders) do
    for key in pairs(c.reservation.has) do release_recipient(sender[2], key, c.reservation.expires, 0) end
  end
end

local function save_all(c, senders)
  save_customer(c)
  for _, sender in ipairs(senders) do save_sender(sender[2]) end
end
