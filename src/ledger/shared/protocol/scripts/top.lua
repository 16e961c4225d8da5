-- How much of a limit some accounts have used. KEYS: the accounts, each with its second key. ARGV: the limit's number. Writes
-- nothing.
local limit = tonumber(ARGV[1])
local used = {}
for i = 1, #KEYS, 2 do
  local account
  if limit > 4 then
    local c = open_customer(KEYS[i], KEYS[i + 1])
    account = limit == 6 and c.day or c.ten_minutes
  else
    now = time()
    local a = open_sender(KEYS[i], KEYS[i + 1])
    account = limit % 2 == 1 and a.messages or a.times
  end
  used[#used + 1] = account.total
end
return used
