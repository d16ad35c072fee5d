-- Strings: much of the time is in LuaJIT's own C functions, which traces call. Argument: seconds.
local seconds = tonumber(arg and arg[1]) or 1

local function build(n)
  local parts = {}
  for i = 1, n do
    parts[#parts + 1] = "item " .. i .. ":" .. string.sub("abcdefghij", i % 10 + 1)
  end
  return table.concat(parts, ",")
end

while os.clock() < seconds do
  for _ = 1, 20 do build(1000) end
end
