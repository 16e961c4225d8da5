-- The server's clock, in milliseconds: the MTAs' clocks differ.
local function time()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- How many of the last arguments are about the clock.
local about_clock = 0
