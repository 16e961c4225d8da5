-- Reserves one more recipient for a transaction, and its message with the first: all limits, or nothing.
-- KEYS: the customer's account; of the user, and of the login, account and shards. ARGV: parameters, the transaction, the
-- recipient. Answers the time, or {time, standings…}.
local function reserve()
  local p, id, key = parameters(), ARGV[2], ARGV[3]
  local c = open_customer(KEYS[1], id)
  local mine = c.mine
  if mine and mine.has[key] then return now end
  local keys = { key }
  local senders = open_senders(p.who, id, keys)
  local answer = decide(p, c, senders, keys, 1)
  if answer.refuses then return answer end
  local ends = mine and mine.ends or now + p.timeout
  put(c, 'o' .. id, write('>I6', ends) .. (mine and mine.keys or '') .. key)
  c.held, c.due = c.held + 1, earliest(c.due, ends)
  for _, sender in ipairs(senders) do
    local a = sender[2]
    if not mine then
      a.open = a.open + 1
      put(a, 'm' .. id, write('>I6', ends))
    end
    hold(a, key, ends)
  end
  save_all(c, senders)
  if #answer == 1 then return now end
  return answer
end
