-- More live numbers than registers: traces that make room on the stack, and side traces that make more.
-- Argument: seconds.
local seconds = tonumber(arg and arg[1]) or 1

-- All of these live from round to round.
local function many(n)
  local a, b, c, d, e, f, g, h, i = 1, 2, 3, 4, 5, 6, 7, 8, 9
  local j, k, l, m, o, p, q, r = 10, 11, 12, 13, 14, 15, 16, 17.5
  for z = 1, n do
    a, b, c, d, e, f = b + r, c - a, d + z, e * 0.5, f - b, g + a
    g, h, i, j, k, l = h - c, i + d, j * 0.25, k - e, l + f, m - g
    m, o, p, q, r = o + h, p - i, q + j, r * 0.5, a - k
  end
  return a + b + c + d + e + f + g + h + i + j + k + l + m + o + p + q + r
end

-- Few live here, many in a branch.
local function branch(n)
  local x, y = 1.5, 2.5
  for z = 1, n do
    x = x * 0.5 + z
    if z % 7 == 3 then
      local a, b, c, d, e, f = x + 1, x + 2, x + 3, x + 4, x + 5, x + 6
      local g, h, i, j, k, l = y + 1, y + 2, y + 3, y + 4, y + 5, y + 6
      local m, o, p, q, r, s = z + 1.5, z + 2.5, z + 3.5, z + 4.5, z + 5.5, z + 6.5
      y = (a * g + b * h + c * i + d * j + e * k + f * l) * (m + o + p + q + r + s)
      y = (y + a * m + b * o + c * p + d * q + e * r + f * s) * (g + h + i + j + k + l)
      y = (y + g * m + h * o + i * p + j * q + k * r + l * s) * (a + b + c + d + e + f) % 1001
      if z % 2 == 0 then
        y = y + (a * b + c * d + e * f) * (g * h + i * j + k * l) % 7 + (m * o + p * q + r * s) % 5
      end
    end
  end
  return x + y
end

while os.clock() < seconds do
  many(20000)
  branch(20000)
end
