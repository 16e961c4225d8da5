-- The server's clock, in milliseconds: the MTAs' clocks differ. It does not advance while a script runs.
local clock
local function time()
  if not clock then
    local t = redis.call('TIME')
    clock = t[1] * 1000 + math.floor(t[2] / 1000)
  end
  return clock
end

-- How many trailing arguments are about the clock.
local about_clock = 1
