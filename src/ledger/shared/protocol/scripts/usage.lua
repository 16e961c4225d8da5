-- A subject's usage. KEYS: the customer's account and its second key; the same of a user or login. ARGV: the maximum of each of its
-- two limits, -1 for none. Returns, flat: used, reserved, when one more fits (ms; 0: now), of messages and of unique recipients, or
-- of the customer's day and ten minutes. Writes nothing.
local c = open_customer(KEYS[1], KEYS[2])
local windows, reserved = { c.day, c.ten_minutes }, { c.reserved, c.reserved }
if KEYS[3] then
  local a = open_sender(KEYS[3], KEYS[4])
  windows, reserved = { a.messages, a.times }, { a.open, a.unseen }
end
local answer = {}
for i, w in ipairs(windows) do
  local max = tonumber(ARGV[i])
  local is_full = max > 0 and w.total >= max
  answer[#answer + 1] = w.total
  answer[#answer + 1] = reserved[i]
  answer[#answer + 1] = is_full and falls_to(w, max - 1, now, {}) or 0
end
return answer
