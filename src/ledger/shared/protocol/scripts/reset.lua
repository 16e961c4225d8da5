-- Forgets a subject's usage; reservations stay. KEYS: as for usage.
local c = open_customer(KEYS[1], KEYS[2])
if not KEYS[3] then
  clear(c.day)
  clear(c.ten_minutes)
  save_customer(c)
  return 1
end
local a = open_sender(KEYS[3], KEYS[4])
clear(a.messages)
clear(a.times)
local names = {}
for shard = 0, a.shards - 1 do
  names[#names + 1] = write('>I3', shard)
  if #names == AT_ONCE or shard == a.shards - 1 then
    call('HDEL', a.more, unpack(names))
    names = {}
  end
end
a.shards, a.stored, a.shard, a.changed = 1, 0, {}, {}
-- Whatever was seen until now no longer counts, also of reserved recipients.
a.times.forgotten = floor(now / 1000) + 1
look_through(a)
a.times.forgotten = 0
save_sender(a)
return 1
