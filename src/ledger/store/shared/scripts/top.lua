-- How much of a limit some accounts have used. KEYS: the accounts. ARGV: the limit's number. Writes nothing.
local limit = tonumber(ARGV[1])
local now, used = time(), {}
for i, key in ipairs(KEYS) do
  local a, w = { key = key }, nil
  if limit == 6 then
    w = window(DAY, 'd', a, call('HGET', key, 's'), 21)
  elseif limit == 5 then
    w = window(TEN_MINUTES, 'p', a, call('HGET', key, 's'), 41)
  elseif limit % 2 == 1 then
    w = window(DAY, 'd', a, call('HGET', key, 's'), 15)
  else
    w = window(DAY, 'n', a, call('HGET', key, 'u'), 20)
  end
  forget(w, now)
  used[i] = w.total
end
return used
