-- The server's clock, in milliseconds, as a test sets it: the last argument is '+' and a shift, or '=' and the time.
local clock
local function time()
  if not clock then
    local how, number = string.match(ARGV[#ARGV], '^([+=])(%d+)$')
    local t = redis.call('TIME')
    clock = how == '=' and tonumber(number) or t[1] * 1000 + math.floor(t[2] / 1000) + (tonumber(number) or 0)
  end
  return clock
end

-- How many trailing arguments are about the clock.
local about_clock = 2
