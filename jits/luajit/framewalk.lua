-- Tells profilers how to walk through LuaJIT's traces (docs/abi.md, "Frame areas"): x86-64, Linux.
--
--   require("framewalk").start()               the library is found as libframewalk_announce.so,
--   require("framewalk").start("/a/lib.so")    here, or where $FRAMEWALK_LIBRARY says
--   luajit -e 'require("framewalk").start()' program.lua
--
-- Call it early: start() flushes the traces that exist already, because nothing says how they were made.
-- Nothing in LuaJIT is changed. Each trace costs one to three calls of the library while it is made, and nothing while
-- it runs.
--
-- What is told. A trace runs on the C frame of the interpreter, 16 bytes further down (r12 and r13 are saved there),
-- and as much lower again as its spill slots need ("spadjust"; a side trace begins with its parent's). So inside
-- each trace CFA = rsp + 80 + 16 + spadjust, but for its head, before it makes the room, and for its last jump, after
-- it gave the room back. LuaJIT tells nobody what spadjust is; it is read from the machine code (see `room`).

local ffi = require("ffi")
local util = require("jit.util")

ffi.cdef [[
struct framewalk_area;
struct framewalk_area_options {
  uint64_t text_start, text_len;
  uint32_t capacity, granule_shift;
  uint64_t heap, key;
  uint32_t how, rule[2];
};
struct framewalk_function {
  uint64_t start;
  uint32_t size, how, rule[2], cookie;
  const void *rows;
  uint32_t rows_len;
  const char *name;
  uint32_t name_len;
};
struct framewalk_area *framewalk_area_create(const struct framewalk_area_options *);
void framewalk_area_destroy(struct framewalk_area *);
int64_t framewalk_area_publish(struct framewalk_area *, const struct framewalk_function *);
]]

-- Of the frame area's layout.
local FIXED, OPAQUE = 2, 6
-- The return address at CFA - 8, the caller's rbp at CFA - 16: the interpreter pushes it first.
local SLOTS = bit.bor(bit.band(-8, 0xffff), bit.lshift(-16, 16))
-- Where a trace finds rsp: below the interpreter's C frame (80 bytes with its return address) and two registers.
local FRAME = 80 + 16

-- Counts: traces described, traces that were not understood or had no place, areas.
local M = { described = 0, passed_over = 0, areas = 0 }

local library       -- what ffi.load answered
local areas = {}    -- a frame area for each piece of memory that LuaJIT keeps traces in: first, last, handle
local begun = {}    -- by number, traces that are being recorded: parent, name
local spadjust = {} -- by number, of the traces that exist
local store         -- the instruction that each trace has behind its head, up to the number that it stores
local others        -- another handler of trace events

-- n where the four or seven bytes of code before `at` are `add rsp, n`, and their number; 0 and 0 otherwise.
local function added(code, at)
  if code:sub(at - 4, at - 2) == "\x48\x83\xc4" then
    local n = code:byte(at - 1)
    return n < 128 and n or n - 256, 4
  end
  if code:sub(at - 7, at - 5) == "\x48\x81\xc4" then
    local a, b, c, d = code:byte(at - 4, at - 1)
    return bit.bor(a, b * 2^8, c * 2^16, bit.lshift(d, 24)), 7
  end
  return 0, 0
end

-- The bytes of a number in code.
local function word(n)
  local low, high = bit.band(n, 0xffff), bit.rshift(n, 16)
  return string.char(low % 256, bit.rshift(low, 8), high % 256, bit.rshift(high, 8))
end

-- The room that a trace's code makes: spadjust, where it has been made (from the trace's start), where it is given back
-- (likewise). nil where the code is not as expected, which is then described by nobody.
--
-- Each trace stores its number in the global state, by `mov dword [r14 + x], number`, and just before it, if it needs
-- room, stands `add rsp, -room`. A root trace has nothing before them, which is how x is learned. A side trace first
-- checks the Lua stack and moves registers. At the end of each trace without a loop of its own, just before
-- the last jump, stands `add rsp, spadjust` if that is not 0: it has to agree with the head.
local function room(code, loop, number, parent)
  if not store then
    local mov = code:find("\x41\xc7[\x46\x86]")
    local first = mov and code:sub(mov, mov + (code:byte(mov + 2) == 0x46 and 3 or 6))
    if parent or not mov or mov > 12 or code:sub(mov + #first, mov + #first + 3) ~= word(number) then return nil end
    store = first
  end
  local mov = code:find(store .. word(number), 1, true)
  if not mov then return nil end
  local made, size = added(code, mov)
  if not parent then
    local before = code:sub(1, mov - 1 - size)
    if before ~= "" and before ~= "\xf3\x0f\x1e\xfa" then return nil end
  end
  local whole = (parent and spadjust[parent] or 0) - made
  if made > 0 or whole % 16 ~= 0 then return nil end
  if loop ~= 0 then return whole, mov - 1, #code end

  -- `jmp rel32`, or `jmp [rip + x]` where the interpreter is far away.
  local jump = code:byte(-5) == 0xe9 and #code - 5 or code:sub(-6, -5) == "\xff\x25" and #code - 6
  if not jump then return nil end
  if whole ~= 0 and added(code, jump + 1) ~= whole then return nil end
  return whole, mov - 1, jump
end

-- The executable mapping around an address, without what areas hold already: LuaJIT allocates its areas one below
-- the other, and the kernel makes one mapping of them.
local function mapping(address)
  local maps = io.open("/proc/self/maps")
  if not maps then return nil end
  local first, last
  for line in maps:lines() do
    local from, to, how = line:match("^(%x+)%-(%x+) (%S+)")
    from, to = tonumber(from, 16), tonumber(to, 16)
    if from <= address and address < to and how:find("x") then first, last = from, to end
  end
  maps:close()
  if not first then return nil end
  for _, area in ipairs(areas) do
    if area.last <= address then
      first = math.max(first, area.last)
    elseif area.first > address then
      last = math.min(last, area.first)
    end
  end
  return first, last
end

-- The frame area of the memory that a trace lies in. What no entry describes there is exit stubs, constants, and traces
-- that were not understood: nobody can walk on from those (default rule OPAQUE).
local function area_of(address)
  for _, area in ipairs(areas) do
    if area.first <= address and address < area.last then return area.handle end
  end
  local first, last = mapping(address)
  if not first then return nil end
  local handle = library.framewalk_area_create(ffi.new("struct framewalk_area_options", {
    text_start = first, text_len = last - first, capacity = (last - first) / 32, granule_shift = 8,
    heap = last - first, key = first, how = OPAQUE,
  }))
  if handle == nil then return nil end
  areas[#areas + 1] = { first = first, last = last, handle = handle }
  M.areas = #areas
  return handle
end

-- Takes everything back.
local function withdraw()
  for _, area in ipairs(areas) do library.framewalk_area_destroy(area.handle) end
  areas, spadjust, begun = {}, {}, {}
end

local function made(number)
  local trace = begun[number]
  begun[number] = nil
  local code, address, loop = util.tracemc(number)
  if not trace or not code then return end
  local whole, open, close = room(code, loop, number, trace.parent)
  spadjust[number] = whole
  local area = whole and area_of(address)
  if not area then
    M.passed_over = M.passed_over + 1
    return
  end
  local entry = ffi.new("struct framewalk_function", { how = FIXED, name = trace.name, name_len = #trace.name })
  entry.rule[1] = SLOTS
  local function publish(from, to, below)
    if from == to then return true end
    entry.start, entry.size, entry.rule[0] = address + from, to - from, FRAME + below
    return library.framewalk_area_publish(area, entry) >= 0
  end
  local before = trace.parent and spadjust[trace.parent] or 0
  if before == whole then open = 0 end -- nothing changes there,
  if whole == 0 then close = #code end -- nor there
  local all = publish(0, open, before) and publish(open, close, whole) and publish(close, #code, 0)
  M[all and "described" or "passed_over"] = M[all and "described" or "passed_over"] + 1
end

local function event(what, number, func, pc, parent, exit)
  if what == "start" then
    -- A trace that is stitched to another one (exit -1) begins like a root trace.
    local info = util.funcinfo(func, pc)
    local name = ("trace %d %s"):format(number, info.loc or "?")
    begun[number] = { parent = exit ~= -1 and parent or nil, name = name:sub(1, 255) }
  elseif what == "stop" then
    made(number)
  elseif what == "abort" then
    begun[number] = nil
  elseif what == "flush" then
    withdraw()
  end
  if others then others(what, number, func, pc, parent, exit) end
end
jit.off(event, true)
for _, f in ipairs { added, word, room, mapping, area_of, withdraw, made } do jit.off(f, true) end

-- LuaJIT keeps one handler for each kind of event. What jit.v, jit.dump or a profiler attached, or attaches later, is
-- called from here.
local function attach()
  local real = jit.attach
  local handlers = debug.getregistry()._VMEVENTS or {}
  local before = {}
  for slot, handler in pairs(handlers) do before[slot] = handler end
  real(event, "trace")
  for slot, handler in pairs(debug.getregistry()._VMEVENTS) do
    if handler == event then others = before[slot] end
  end
  function jit.attach(handler, kind)
    if kind == "trace" then
      others = handler
    else
      if not kind and handler == others then others = nil end
      real(handler, kind)
    end
  end
end

-- Where LuaJIT flushes by itself, the event comes when the memory has just been unmapped. Where the program flushes,
-- everything can be taken back before. (In a finalizer LuaJIT refuses to flush; its traces are not described then.)
local function before_flush()
  local real = jit.flush
  function jit.flush(...)
    if (...) == nil then withdraw() end
    return real(...)
  end
end

-- Begins. true, or nil and why not.
function M.start(path)
  if library then return true end
  if jit.arch ~= "x64" or jit.os ~= "Linux" or not ffi.abi("gc64") then
    return nil, "only for LuaJIT with 64 bit pointers (GC64) on Linux, x86-64"
  end
  local loaded, found = pcall(ffi.load, path or os.getenv("FRAMEWALK_LIBRARY") or "framewalk_announce")
  if not loaded then return nil, found end
  library = found
  attach()
  before_flush()
  jit.flush()
  -- lua_close() frees the traces without an event. Finalizers run before it does, the latest object's first, so
  -- the library is still there.
  M.guard = newproxy(true)
  getmetatable(M.guard).__gc = function()
    jit.attach(event)
    withdraw()
  end
  return true
end

return M
