-- Whether some recipients would fit, as one message. KEYS and ARGV: as for reserve, with any number of recipients. What the
-- transaction has reserved counts as the message's own. Writes nothing.
local function look()
  local p, id = parameters(), ARGV[2]
  local c = open_customer(KEYS[1], KEYS[2])
  local senders = open_senders(p.who, c, id)
  local keys = {}
  for _, key in ipairs(keys_in(ARGV[3])) do
    if not (c.reservation and c.reservation.has[key]) then keys[#keys + 1] = key end
  end
  look_up(senders, keys)
  return decide(p, c, senders, keys, #keys)
end
