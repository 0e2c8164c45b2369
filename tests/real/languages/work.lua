-- Coroutines, tables and strings, files, child processes.
local rounds = tonumber(arg[1])
local producer = coroutine.wrap(function()
  local a, b = 0, 1
  while true do coroutine.yield(a); a, b = b, (a + b) % 1000000007 end
end)
local keep = setmetatable({}, { __mode = "v" })
local log = assert(io.open("log", "w"))
local data = {}
for step = 1, rounds do
  for i = 1, 20000 do data[#data + 1] = { i * step % 1009, tostring(i) } end
  table.sort(data, function(x, y) return x[1] < y[1] or x[1] == y[1] and x[2] < y[2] end)
  keep[step] = data
  local sum = 0
  for i, pair in ipairs(data) do sum = (sum + i * pair[1]) % 1000000007 end
  if step % 3 == 0 then data = {}; collectgarbage() end
  local child = assert(io.popen("sleep 0.05; echo child " .. step))
  local said = child:read("l")
  child:close()
  local _, how, code = os.execute("exit " .. step % 5)
  log:write("step ", step, " ", sum, "\n")
  print(step, sum, producer(), said, how, code, string.format("%q", ("x"):rep(step % 9)))
  io.stdout:flush()
end
log:close()
