-- Bodies that attract each other: floating point, nested loops over tables. Argument: seconds.
local seconds = tonumber(arg and arg[1]) or 1

local function advance(bodies, dt)
  local n = #bodies
  for i = 1, n do
    local a = bodies[i]
    for j = i + 1, n do
      local b = bodies[j]
      local dx, dy, dz = a.x - b.x, a.y - b.y, a.z - b.z
      local square = dx * dx + dy * dy + dz * dz + 0.01
      local pull = dt / (square * math.sqrt(square))
      a.vx, a.vy, a.vz = a.vx - dx * b.mass * pull, a.vy - dy * b.mass * pull, a.vz - dz * b.mass * pull
      b.vx, b.vy, b.vz = b.vx + dx * a.mass * pull, b.vy + dy * a.mass * pull, b.vz + dz * a.mass * pull
    end
  end
  for i = 1, n do
    local a = bodies[i]
    a.x, a.y, a.z = a.x + dt * a.vx, a.y + dt * a.vy, a.z + dt * a.vz
  end
end

local bodies = {}
for i = 1, 6 do
  bodies[i] = { x = i, y = i * i % 5, z = i % 3, vx = 0, vy = 0.1 * i, vz = 0, mass = 1 / i }
end
while os.clock() < seconds do
  for _ = 1, 2000 do advance(bodies, 0.001) end
end
