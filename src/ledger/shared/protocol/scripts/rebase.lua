-- Moves an account to the time that the server's clock shows now, once under each name. KEYS: the account, its second key. ARGV: c: it is
-- a customer's; by how many seconds; the name. Returns whether it was moved.
local by, name = tonumber(ARGV[2]), ARGV[3]
if not existing(KEYS[1]) or call('HGET', KEYS[2], 'r') == name then return 0 end
if ARGV[1] == 'c' then
  local c = open_customer(KEYS[1], KEYS[2], by)
  put(c, 'r', name)
  save_customer(c)
else
  now = time()
  local a = open_sender(KEYS[1], KEYS[2], nil, by)
  put(a, 'r', name)
  save_sender(a)
end
return 1
