local function usual_reservation()
  local who, _, timeout, messages_max, uniques_max, _, _, peak_max, day_max = read('>I1I1I6I6I6I6I6I6I6', ARGV[1])
  if who ~= 1 then return end
  local id, key = ARGV[2], ARGV[3]
  local of_customer = call('HMGET', KEYS[1], 's', 'o' .. id)
  local of_user = call('HMGET', KEYS[2], 's', 'u', 'm' .. id, 'k' .. key)
  local s, mine, us, u = of_customer[1], of_customer[2], of_user[1], of_user[2]
  if not (s and us and u) or of_user[4] then return end

  local latest, due, kept, held, _, day, _, _, _, _, peak = read('>I6I6I4I4I2I6I4I4I4I2I6', s)
  local user_due, user_kept, open, _, messages = read('>I6I4I4I2I6', us)
  local fresh, known, shards, stored, forgotten, _, uniques = read('>I4I4I3I4I4I2I6', u)
  local now = math.max(time(), latest)
  local kept_for = now / 1000 + 90000
  if due <= now or user_due <= now or known <= forgotten or kept < kept_for or user_kept < kept_for then return end
  if uniques + fresh >= uniques_max or peak + held >= peak_max or day + held >= day_max then return end
  local ends = now + timeout
  if mine then
    ends = read('>I6', mine)
    if place_in(mine, key, 7, 8) then return now end
  elseif messages + open >= messages_max then
    return
  end

  local seen = 0
  if stored > 0 then
    local shard = call('HGET', KEYS[3], usual_shard(shards, key))
    local place = shard and place_in(shard, key, 1, 12)
    seen = place and read('>I4', shard, place + 8) or 0
    if seen <= forgotten then seen = 0 end
  end
  if seen == 0 then fresh = fresh + 1 elseif seen < known then known = seen end
  local until_now = write('>I6I6I4I4', now, ends < due and ends or due, kept, held + 1)
  call('HSET', KEYS[1], 's', until_now .. sub(s, 21), 'o' .. id, (mine or write('>I6', ends)) .. key)
  if ends < user_due then user_due = ends end
  us = write('>I6I4I4', user_due, user_kept, mine and open or open + 1) .. sub(us, 15)
  u, key = write('>I4I4', fresh, known) .. sub(u, 9), 'k' .. key
  if mine then
    call('HSET', KEYS[2], 's', us, 'u', u, key, write('>I4I6', seen, ends))
  else
    call('HSET', KEYS[2], 's', us, 'u', u, key, write('>I4I6', seen, ends), 'm' .. id, write('>I6', ends))
  end
  return now
end
