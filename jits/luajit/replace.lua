-- string.gsub calls Lua for each word: C frames of LuaJIT between two of Lua, at another place than sort's.
-- Argument: seconds.
local seconds = tonumber(arg and arg[1]) or 1

local text = string.rep("the quick brown fox jumps over the lazy dog ", 50)

local function score(word)
  local sum = 0
  for k = 1, 10 do
    for i = 1, #word do sum = (sum * 33 + word:byte(i) + k) % 65521 end
  end
  return tostring(sum)
end

while os.clock() < seconds do text:gsub("%a+", score) end
