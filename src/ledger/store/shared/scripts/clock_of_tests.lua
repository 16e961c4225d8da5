-- The server's clock, in milliseconds, as the test wants it: the last argument is '+' and a shift, or '=' and the time.
local function time()
  local how, number = string.match(ARGV[#ARGV], '^([+=])(%d+)$')
  if how == '=' then return tonumber(number) end
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000) + (tonumber(number) or 0)
end

-- How many of the last arguments are about the clock.
local about_clock = 1
