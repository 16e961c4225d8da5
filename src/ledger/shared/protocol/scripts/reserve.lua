-- Reserves one more recipient for a transaction, and its message with the first: all limits, or nothing.
-- KEYS: the customer's account and its second key; of the user, and of the login, the same. ARGV: parameters, the
-- transaction, the recipient. Answers the time, or {time, standings…}.
local function reserve()
  local p, id, key = parameters(), ARGV[2], ARGV[3]
  local c = open_customer(KEYS[1], KEYS[2])
  local senders = open_senders(p.who, c, id)
  local mine = c.mine
  if mine and mine.has[key] then return now end
  local keys = { key }
  look_up(senders, keys)
  local answer = decide(p, c, senders, keys, 1)
  if answer.refuses then return answer end
  local ends = mine and mine.ends or now + p.timeout
  local transaction = write('>I6', ends) .. (mine and mine.keys or '') .. key
  c.held = c.held + 1
  end_later(c, ends, p.timeout)
  if #senders == 0 then put(c, 't' .. id, transaction) end
  for _, sender in ipairs(senders) do
    local a = sender[2]
    if not mine then a.open = a.open + 1 end
    put_held(a, 't' .. id, transaction)
    hold(a, key, ends)
  end
  save_all(c, senders)
  if #answer == 1 then return now end
  return answer
end
