-- Forgets what is counted for a subject; what is held stays held. KEYS as those of usage.
local c = open_customer(KEYS[1])
if not KEYS[2] then
  clear(c.day)
  clear(c.ten_minutes)
  save_customer(c)
  return 1
end
local a = open_sender(KEYS[2], KEYS[3], nil, {})
clear(a.messages)
clear(a.times)
call('DEL', a.shards_key)
a.shards, a.stored, a.shard = 1, 0, {}
-- Whatever was seen before now is not any more, also of what is held.
a.times.forgotten = floor(now / 1000) + 1
look_through(a)
a.times.forgotten = 0
save_sender(a)
return 1
