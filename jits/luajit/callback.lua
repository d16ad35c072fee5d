-- The C library's qsort calls Lua back through the FFI: its frames lie between two of LuaJIT's. Argument: seconds.
local ffi = require("ffi")
local seconds = tonumber(arg and arg[1]) or 1

ffi.cdef "void qsort(void *, size_t, size_t, int (*)(const int *, const int *));"

local function mixed(x)
  for i = 1, 100 do x = (x * 75 + i) % 65537 end
  return x
end

local compare = ffi.cast("int (*)(const int *, const int *)", function(a, b)
  return mixed(a[0]) - mixed(b[0])
end)

-- A trace may not call C that calls Lua back.
local function sort(numbers, n) ffi.C.qsort(numbers, n, 4, compare) end
jit.off(sort)

local numbers = ffi.new("int[300]")
while os.clock() < seconds do
  for i = 0, 299 do numbers[i] = (i * 7919) % 1009 end
  sort(numbers, 300)
end
