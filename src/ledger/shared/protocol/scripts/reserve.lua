-- Reserves one more recipient for a transaction, and with the first its message: against all limits, or not at all.
-- KEYS: the customer's account and its second key; the same of the user and of the login, if any. ARGV: parameters, the
-- transaction, the recipient. Returns the time; or a list: the time, then five numbers for each limit that does not fit.
local function reserve()
  local p, id, key = parameters(), ARGV[2], ARGV[3]
  local c = open_customer(KEYS[1], KEYS[2])
  local senders = open_senders(p.who, c, id)
  local reservation = c.reservation
  if reservation and reservation.has[key] then return now end
  local keys = { key }
  look_up(senders, keys)
  local answer = decide(p, c, senders, keys, 1)
  if answer.refuses then return answer end
  local expires = reservation and reservation.expires or now + p.timeout
  local transaction = write('>I6', expires) .. (reservation and reservation.keys or '') .. key
  c.reserved = c.reserved + 1
  add_expiry(c, expires, p.timeout)
  if #senders == 0 then put(c, 't' .. id, transaction) end
  for _, sender in ipairs(senders) do
    local a = sender[2]
    if not reservation then a.open = a.open + 1 end
    put_reserved(a, 't' .. id, transaction)
    reserve_recipient(a, key, expires)
  end
  save_all(c, senders)
  if #answer == 1 then return now end
  return answer
end
