-- Traces are made and flushed over and over, by the program and by LuaJIT, which has too little memory for them.
-- Argument: seconds.
local seconds = tonumber(arg and arg[1]) or 1

require("jit.opt").start("maxmcode=64", "sizemcode=32", "hotloop=5")

local function generated(n)
  return assert(loadstring(([[
    local x = %d
    for i = 1, 3000 do x = (x * 31 + i) %% 65521; if x %% 3 == 0 then x = x + 1 end end
    return x
  ]]):format(n), "=generated" .. n % 10))
end

local n = 0
while os.clock() < seconds do
  n = n + 1
  generated(n)()
  if n % 500 == 0 then jit.flush() end
end
