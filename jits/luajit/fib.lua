-- Recursion: traces that call and return, and side traces of side traces. Argument: seconds.
local seconds = tonumber(arg and arg[1]) or 1

local function fib(n)
  if n < 2 then return n end
  return fib(n - 1) + fib(n - 2)
end

while os.clock() < seconds do fib(24) end
