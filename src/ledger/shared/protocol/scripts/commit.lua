-- Counts an accepted message and ends its reservation. What the reservation does not cover is checked against the limits again: all
-- of it fits, or nothing is counted. KEYS: as for reserve. ARGV: parameters; the transaction; its recipients, each once; then packed:
-- how many more have no address, how long ago it was accepted (ms), the nonce, the smallest nonce that may be sent again; the daemon.
-- Returns what reserve returns; and, if requested, the usage report.
local function commit()
  local p, id, accepted = parameters(), ARGV[2], keys_in(ARGV[3])
  local unnamed, age, nonce, unsettled = read('>I4I6I6I6', ARGV[4])
  local daemon = ARGV[5]
  local c = open_customer(KEYS[1], KEYS[2])
  local senders = open_senders(p.who, c, id)

  -- A retry of what was counted already, or a request so late that its nonce was retired.
  local counted, before = {}, c.daemons[daemon]
  if before then
    local is_known = nonce < before.settled
    unsettled = math.max(unsettled, before.settled)
    for place = 1, #before.nonces, 6 do
      local other = read('>I6', before.nonces, place)
      is_known = is_known or other == nonce
      if other >= unsettled then counted[#counted + 1] = sub(before.nonces, place, place + 5) end
    end
    if is_known then
      return p.who >= 4 and { now, usage_report(c, senders) } or now
    end
  end

  if not before then make_room_for_daemon(c) end

  local reservation, recipients, new = c.reservation, #accepted + unnamed, {}
  local touched, is_accepted = {}, {}
  for i, key in ipairs(accepted) do
    touched[i], is_accepted[key] = key, true
    if not (reservation and reservation.has[key]) then new[#new + 1] = key end
  end
  if reservation then
    for key in pairs(reservation.has) do
      if not is_accepted[key] then touched[#touched + 1] = key end
    end
  end
  look_up(senders, touched)
  for _, sender in ipairs(senders) do read_shards(sender[2], accepted) end
  local answer = { now }
  if recipients > 0 then
    answer = decide(p, c, senders, new, math.max(0, recipients - (reservation and reservation.n or 0)))
  end
  if answer.refuses or recipients == 0 then
    if reservation then
      release_reservation(c, senders, id)
      save_all(c, senders)
    end
    return answer
  end

  local at = math.ceil((now - age) / 1000)
  if reservation then end_reservation(c, senders, id) end
  local is_recent = function(w) return at > floor(now / 1000) - w.seconds end
  if is_recent(c.day) then add(c.day, at, recipients) end
  if is_recent(c.ten_minutes) then add(c.ten_minutes, at, recipients) end
  for _, sender in ipairs(senders) do
    local a = sender[2]
    if reservation then
      for key in pairs(reservation.has) do
        if not (is_accepted[key] and is_recent(a.messages)) then release_recipient(a, key, reservation.expires, 0) end
      end
    end
    local newly_seen = 0
    if is_recent(a.messages) then
      add(a.messages, at, 1)
      for _, key in ipairs(accepted) do
        local last = seen(a, key)
        if last and last > at then
          release_recipient(a, key, reservation and reservation.has[key] and reservation.expires, last)
        else
          if last then remove_one(a.times, last) end
          newly_seen = newly_seen + 1
          release_recipient(a, key, reservation and reservation.has[key] and reservation.expires, at)
          remember(a, key, at)
        end
      end
    end
    if newly_seen > 0 then add(a.times, at, newly_seen) end
    tidy(a)
  end
  c.daemons[daemon] = { at = floor(now / 1000), settled = unsettled, nonces = table.concat(counted) .. write('>I6', nonce) }
  if p.who >= 4 then answer[#answer + 1] = usage_report(c, senders) end
  save_all(c, senders)
  if #answer == 1 then return now end
  return answer
end
