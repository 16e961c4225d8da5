-- Whether some recipients would fit, as one message. KEYS and ARGV as those of a reservation, with any number of
-- recipients; what the transaction holds is taken as its own. Writes nothing.
local function look()
  local p, id = parameters(), ARGV[2]
  local c = open_customer(KEYS[1], KEYS[2])
  local senders = open_senders(p.who, c, id)
  local keys = {}
  for _, key in ipairs(keys_in(ARGV[3])) do
    if not (c.mine and c.mine.has[key]) then keys[#keys + 1] = key end
  end
  look_up(senders, keys)
  return decide(p, c, senders, keys, #keys)
end
