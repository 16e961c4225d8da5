-- Answers several questions, in order; what goes wrong with one is its own affair. KEYS and ARGV: those of all questions, one
-- after the other; then of each question three bytes: its letter, how many keys it has, how many arguments. Answers what
-- each script says, as a list if there are several.
local all_keys, all_arguments = KEYS, ARGV
local usual = { r = usual_reservation, c = usual_commit }
local general

local function answer(letter)
  local way = usual[letter]
  local result = way and way()
  if result then return result end
  general = general or in_general()
  return general[letter]()
end

local contents = all_arguments[#all_arguments - about_clock]
if #contents == 3 then return answer(sub(contents, 1, 1)) end

local answers, key, argument = {}, 1, 1
for place = 1, #contents, 3 do
  local keys, arguments = string.byte(contents, place + 1, place + 2)
  KEYS, ARGV = { unpack(all_keys, key, key + keys - 1) }, { unpack(all_arguments, argument, argument + arguments - 1) }
  key, argument = key + keys, argument + arguments
  local went_well, result = pcall(answer, sub(contents, place, place))
  if not went_well then
    -- What a command says, or what is wrong with the script itself.
    result = redis.error_reply(type(result) == 'table' and result.err or 'ERR ' .. tostring(result))
  end
  answers[#answers + 1] = result
end
return answers
