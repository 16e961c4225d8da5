-- Nothing is decided at another time than the daemon expects: the server's clock may have jumped, or the request was on its way for too
-- long. Before the clock's own arguments stands the earliest and the latest time, 6 bytes each.
do
  local shown, earliest, latest = time(), struct.unpack('>I6I6', ARGV[#ARGV - about_clock + 1])
  if shown < earliest or shown > latest then
    return redis.error_reply(string.format("CLOCK the server's clock shows %.0f, expected from %.0f to %.0f", shown, earliest, latest))
  end
end

-- How far the latest time of an account may be ahead (ms): the servers of a store may differ by that much. Beyond it, the clock was
-- wrong then.
local MAX_AHEAD = 30000
