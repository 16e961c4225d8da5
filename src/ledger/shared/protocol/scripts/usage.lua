-- How much is used and held. KEYS: the customer's account and its second key; of a user or login, the same. ARGV: the maximum of
-- each of its two limits, -1 for none. Answers {used, reserved, when one more fits (ms; 0: now)}, flat, of messages and
-- different recipients, or of the customer's day and ten minutes. Writes nothing.
local c = open_customer(KEYS[1], KEYS[2])
local windows, held = { c.day, c.ten_minutes }, { c.held, c.held }
if KEYS[3] then
  local a = open_sender(KEYS[3], KEYS[4])
  windows, held = { a.messages, a.times }, { a.open, a.fresh }
end
local answer = {}
for i, w in ipairs(windows) do
  local max = tonumber(ARGV[i])
  local is_full = max > 0 and w.total >= max
  answer[#answer + 1] = w.total
  answer[#answer + 1] = held[i]
  answer[#answer + 1] = is_full and falls_to(w, max - 1, now, {}) or 0
end
return answer
