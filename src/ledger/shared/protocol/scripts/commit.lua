-- Counts an accepted message and ends its reservation; what that does not hold is decided anew: all, or nothing.
-- KEYS as those of a reservation. ARGV: parameters; the transaction; its recipients, each once; how many further ones have
-- no name, how long ago it was accepted (ms), the nonce, and the smallest one that may yet be sent again; the daemon.
-- Answers as a reservation does; and, if asked, how much of each limit is used and held.
local function commit()
  local p, id, kept = parameters(), ARGV[2], keys_in(ARGV[3])
  local unnamed, age, nonce, unsettled = read('>I4I6I6I6', ARGV[4])
  local daemon = ARGV[5]
  local c = open_customer(KEYS[1], KEYS[2])
  local senders = open_senders(p.who, c, id)

  -- A retry of what was counted already? Or late: what became of it was settled without this.
  local counted, before = '', c.daemons[daemon]
  if before then
    local is_known = nonce < before.settled
    unsettled = math.max(unsettled, before.settled)
    for place = 1, #before.nonces, 6 do
      local other = read('>I6', before.nonces, place)
      is_known = is_known or other == nonce
      if other >= unsettled then counted = counted .. sub(before.nonces, place, place + 5) end
    end
    if is_known then
      return p.who >= 4 and { now, told(c, senders) } or now
    end
  end

  local mine, recipients, new = c.mine, #kept + unnamed, {}
  local touched, is_kept = {}, {}
  for i, key in ipairs(kept) do
    touched[i], is_kept[key] = key, true
    if not (mine and mine.has[key]) then new[#new + 1] = key end
  end
  if mine then
    for key in pairs(mine.has) do
      if not is_kept[key] then touched[#touched + 1] = key end
    end
  end
  look_up(senders, touched)
  for _, sender in ipairs(senders) do read_shards(sender[2], kept) end
  local answer = { now }
  if recipients > 0 then
    answer = decide(p, c, senders, new, math.max(0, recipients - (mine and mine.n or 0)))
  end
  if answer.refuses or recipients == 0 then
    if mine then
      release(c, senders, id)
      save_all(c, senders)
    end
    return answer
  end

  local at = math.ceil((now - age) / 1000)
  if mine then let_go_of_transaction(c, senders, id) end
  local is_recent = function(w) return at > floor(now / 1000) - w.seconds end
  if is_recent(c.day) then add(c.day, at, recipients) end
  if is_recent(c.ten_minutes) then add(c.ten_minutes, at, recipients) end
  for _, sender in ipairs(senders) do
    local a = sender[2]
    if mine then
      for key in pairs(mine.has) do
        if not (is_kept[key] and is_recent(a.messages)) then let_go(a, key, mine.ends, 0) end
      end
    end
    local newly_seen = 0
    if is_recent(a.messages) then
      add(a.messages, at, 1)
      for _, key in ipairs(kept) do
        local last = seen(a, key)
        if last and last > at then
          let_go(a, key, mine and mine.has[key] and mine.ends, last)
        else
          if last then remove_one(a.times, last) end
          newly_seen = newly_seen + 1
          let_go(a, key, mine and mine.has[key] and mine.ends, at)
          remember(a, key, at)
        end
      end
    end
    if newly_seen > 0 then add(a.times, at, newly_seen) end
    tidy(a)
  end
  c.daemons[daemon] = { at = floor(now / 1000), settled = unsettled, nonces = counted .. write('>I6', nonce) }
  if p.who >= 4 then answer[#answer + 1] = told(c, senders) end
  save_all(c, senders)
  if #answer == 1 then return now end
  return answer
end
