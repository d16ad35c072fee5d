-- Coroutines: the interpreter runs each on a C frame of its own; loops in them are traces. Argument: seconds.
local seconds = tonumber(arg and arg[1]) or 1

local function numbers(n)
  return coroutine.wrap(function()
    for i = 1, n do
      local x = i
      for k = 1, 200 do x = (x * 31 + k) % 65521 end
      coroutine.yield(x)
    end
  end)
end

while os.clock() < seconds do
  local sum = 0
  for x in numbers(500) do
    for k = 1, 50 do sum = (sum + x * k) % 65521 end
  end
end
