-- Matrices in C arrays: tight loops, one inside the other. Argument: seconds.
local ffi = require("ffi")
local seconds = tonumber(arg and arg[1]) or 1

local N = 64
local a, b, c = ffi.new("double[?]", N * N), ffi.new("double[?]", N * N), ffi.new("double[?]", N * N)
for i = 0, N * N - 1 do a[i], b[i] = i % 7, i % 5 end

local function multiply()
  for i = 0, N - 1 do
    for j = 0, N - 1 do
      local sum = 0
      for k = 0, N - 1 do sum = sum + a[i * N + k] * b[k * N + j] end
      c[i * N + j] = sum
    end
  end
end

while os.clock() < seconds do multiply() end
