-- table.sort calls back: C frames of LuaJIT (sort, recursively) lie below each trace. Argument: seconds.
local seconds = tonumber(arg and arg[1]) or 1

local function weight(x)
  local sum = 0
  for i = 1, 20 do sum = sum + (x * i) % 7 end
  return sum * 1000 + x
end

local function heavier(a, b) return weight(a) < weight(b) end

while os.clock() < seconds do
  local t = {}
  for i = 1, 500 do t[i] = (i * 7919) % 1009 end
  table.sort(t, heavier)
end
