-- Releases a transaction's reservation. KEYS: as for reserve. ARGV: flags (1 there is a user, 2 there is a login); the transaction.
local function release_all()
  local id = ARGV[2]
  local c = open_customer(KEYS[1], KEYS[2])
  local senders = open_senders(tonumber(ARGV[1]), c, id)
  if not c.reservation then return 0 end
  look_up(senders, keys_in(c.reservation.keys))
  release_reservation(c, senders, id)
  save_all(c, senders)
  return 1
end
