-- Serves one or several requests, in order; an error in one does not affect the others. KEYS and ARGV: those of all requests, one
-- after the other; then three bytes for each request: its opcode, how many keys it has, how many arguments. Returns the response,
-- or a list of responses if there are several requests.
local byte = string.byte
local RESERVE, COMMIT = byte('rc', 1, 2)
local scripts

local function serve(opcode, key, argument, key_count, argument_count)
  local result
  if opcode == RESERVE then
    result = fast_reserve(key, argument)
  elseif opcode == COMMIT then
    result = fast_commit(key, argument)
  end
  if result then return result end
  KEYS = { unpack(keys, key, key + key_count - 1) }
  ARGV = { unpack(arguments, argument, argument + argument_count - 1) }
  scripts = scripts or slow_path()
  return scripts[opcode]()
end

local contents = arguments[#arguments - about_clock]
local first, key_count, argument_count = byte(contents, 1, 3)
if #contents == 3 then return serve(first, 1, 1, key_count, argument_count) end

local responses, key, argument = {}, 1, 1
for place = 1, #contents, 3 do
  local opcode, key_count, argument_count = byte(contents, place, place + 2)
  local succeeded, result = pcall(serve, opcode, key, argument, key_count, argument_count)
  if not succeeded then
    -- An error of a command, or of the script itself.
    result = redis.error_reply(type(result) == 'table' and result.err or 'ERR ' .. tostring(result))
  end
  responses[#responses + 1] = result
  key, argument = key + key_count, argument + argument_count
end
return responses
