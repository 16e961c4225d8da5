-- Answers several questions, in order; what goes wrong with one is its own affair. KEYS and ARGV: those of all questions, one
-- after the other; then of each question three bytes: its letter, how many keys it has, how many arguments. Answers what
-- each script says, as a list if there are several.
local byte = string.byte
local RESERVES, COUNTS = byte('rc', 1, 2)
local general

local function answer(letter, key, argument, key_count, argument_count)
  local result
  if letter == RESERVES then
    result = usual_reserve(key, argument)
  elseif letter == COUNTS then
    result = usual_commit(key, argument)
  end
  if result then return result end
  KEYS = { unpack(keys, key, key + key_count - 1) }
  ARGV = { unpack(arguments, argument, argument + argument_count - 1) }
  general = general or slow_path()
  return general[letter]()
end

local contents = arguments[#arguments - about_clock]
local first, key_count, argument_count = byte(contents, 1, 3)
if #contents == 3 then return answer(first, 1, 1, key_count, argument_count) end

local answers, key, argument = {}, 1, 1
for place = 1, #contents, 3 do
  local letter, key_count, argument_count = byte(contents, place, place + 2)
  local went_well, result = pcall(answer, letter, key, argument, key_count, argument_count)
  if not went_well then
    -- What a command says, or what is wrong with the script itself.
    result = redis.error_reply(type(result) == 'table' and result.err or 'ERR ' .. tostring(result))
  end
  answers[#answers + 1] = result
  key, argument = key + key_count, argument + argument_count
end
return answers
