-- Appends one batch of a producer: events, last state, sessions, ledger, and the producer's number.
--
-- KEYS[1]  <prefix>producer:<id>
-- ARGV     1 prefix  2 number  3 producer id  4 instance  5 source  6 received ms  7 session ttl s
--          8 limited  9 dropped  10 count of groups
--          11-16 MAXLEN of position event link result raw dead; 0: not trimmed here  17 received, RFC 3339
-- then for each group (one ident, touched once):
--   ident, device_id, flags (s: stateful, r: refresh expiry), ttl s (0: for ever), private state ('': as it is),
--   count of events
--   then for each event:
--     head: stream letter, first of its frame 1/0, last state: 3 position that differs from the one before only
--       in where it is, 2 any other position, 1 status, 0 not; outcome
--     first 8 bytes of the id, device time ms or '', id, type, time, received, protocol,
--     17 columns (latitude ... peer; position stream only), data
-- Outcomes: p published or duplicate, u undecodable, a unauthorised, n unrecognised, - not a frame.
--
-- Returns {status, number, codes, reasons, lost, faults}: status ok | already | gap; codes one letter an event
-- (p published, d duplicate, r refused), '' when all are p; reasons of the refused; idents that another instance
-- holds; what went wrong beside the events.
--
-- The first write is the number's SET: memory limits and a lack of replicas refuse it, and then nothing was
-- written.  After it every write is a pcall: a script is not rolled back.

local call, pcall_, unpack, sub, find = redis.call, redis.pcall, unpack, string.sub, string.find
local A = ARGV
local prefix, number, instance = A[1], tonumber(A[2]), A[4]

local last = tonumber(call('GET', KEYS[1]) or '0')
if number <= last then return {'already', last} end
if number > last + 1 then return {'gap', last} end
call('SET', KEYS[1], A[2], 'EX', 2592000)

local streams = {p = 'position', e = 'event', l = 'link', r = 'result', w = 'raw', d = 'dead'}
local order = {'p', 'e', 'l', 'r', 'w', 'd'}
local touched = {}

-- arguments of XADD with the names in place; only the values change
local P = {
  'v', '1', 'id', '', 'type', '', 'source', A[5], 'time', '', 'received', '', 'ident', '', 'protocol', '',
  'device_id', '', 'latitude', '', 'longitude', '', 'altitude_m', '', 'speed_kmh', '', 'course_deg', '',
  'valid', '', 'satellites', '', 'ignition', '', 'immobilizer', '', 'external_power', '', 'battery_pct', '',
  'odometer_km', '', 'levels', '', 'status_word', '', 'late', '', 'transport', '', 'peer', '', 'data', ''}
local E = {
  'v', '1', 'id', '', 'type', '', 'source', A[5], 'time', '', 'received', '', 'ident', '', 'protocol', '',
  'device_id', '', 'data', ''}
local LATE, DATA = 48, 54
-- arguments of HSET for the last state, the same way; what changes with each report of a moving device stands first
local L = {
  'position_id', '', 'seen', '', 'time', '', 'received', '', 'latitude', '', 'longitude', '', 'altitude_m', '',
  'speed_kmh', '', 'course_deg', '', 'online', '1', 'protocol', '', 'device_id', '',
  'valid', '', 'satellites', '', 'ignition', '', 'immobilizer', '', 'external_power', '', 'battery_pct', '',
  'odometer_km', '', 'levels', '', 'status_word', '', 'late', '', 'transport', '', 'peer', ''}
local MOVED = 18

local codes, reasons, lost, faults, plain = {}, {}, {}, {}, true
local ledger = {}
local names = {p = 'published', d = 'duplicate', r = 'refused', u = 'undecodable', a = 'unauthorised', n = 'unrecognised'}
local frame = nil -- outcome of the frame that is being appended

-- what a head says, read once for each kind of it
local heads = {}
local function read_head(head)
  local stream = sub(head, 1, 1)
  local T, size = E, 9
  if stream == 'p' then T, size = P, 26 end
  local fact = {stream, prefix .. streams[stream], T, size, sub(head, 2, 2) == '1', sub(head, 3, 3), sub(head, 4, 4)}
  heads[head] = fact
  return fact
end

local function count(outcome)
  if outcome then
    ledger[outcome] = (ledger[outcome] or 0) + 1
    ledger.all = (ledger.all or 0) + 1
  end
end

local function try(...)
  local answer = pcall_(...)
  if type(answer) == 'table' and answer.err then
    if #faults < 8 then faults[#faults + 1] = answer.err end
    return nil
  end
  return answer
end

local function aligned(ids, key)
  local at = find(ids, key, 1, true)
  while at and (at - 1) % 8 ~= 0 do at = find(ids, key, at + 1, true) end
  return at
end

local i = 18
for _ = 1, tonumber(A[10]) do
  local ident, device_id, flags, ttl, private, events = A[i], A[i + 1], A[i + 2], A[i + 3], A[i + 4], tonumber(A[i + 5])
  i = i + 6
  local stateful, refresh = find(flags, 's', 1, true), find(flags, 'r', 1, true)
  local state_key = prefix .. 'state:' .. ident
  local ids, newest, holder, known
  if stateful then
    local state = try('HMGET', state_key, 'ids', 'newest', 'holder') or {}
    ids, known, holder = state[1] or '', state[2], state[3]
    newest = known and tonumber(known)
  end
  local before, stamp = ids, newest
  -- another instance holds the device: what this one thinks of it is out of date
  local away = holder and holder ~= instance
  local received_any = false
  if away then lost[#lost + 1] = ident end
  local skip = false
  local report_at, status_at, full = nil, nil, false -- where in ARGV the events stand that make the last state
  for _ = 1, events do
    local head = A[i]
    local fact = heads[head] or read_head(head)
    local stream, T, size, first, mode, outcome = fact[1], fact[3], fact[4], fact[5], fact[6], fact[7]
    local key8, when = A[i + 1], A[i + 2]
    if mode == '2' then full = true end
    local code = 'p'
    if first then
      count(frame)
      frame = nil
      skip = stateful and outcome == 'p' and aligned(ids, key8) ~= nil
    end
    if outcome ~= '-' then received_any = true end
    if skip or (away and outcome == '-') then
      code = 'd'
    else
      T[4], T[6], T[10], T[12], T[14], T[16], T[18] = A[i + 3], A[i + 4], A[i + 5], A[i + 6], ident, A[i + 7], device_id
      local ms = when ~= '' and tonumber(when)
      local older = ms and newest and ms < newest
      if stream == 'p' then
        local j = i + 8
        for at = 20, DATA, 2 do
          T[at] = A[j]
          j = j + 1
        end
        if older and T[LATE] == '' then T[LATE] = 'order' end
      else
        T[20] = A[i + 8]
      end
      local answer = pcall_('XADD', fact[2], '*', unpack(T))
      if type(answer) == 'table' and answer.err then
        code = 'r'
        reasons[#reasons + 1] = answer.err
        plain = false
      else
        touched[stream] = true
        if stateful and outcome == 'p' then
          if first then
            -- a device that sends late reports is remembered further back, for as long as its state is kept
            local room = T[LATE] ~= '' and stream == 'p' and 4096 or math.max(#ids, 512)
            ids = ids .. key8
            if #ids > room then ids = sub(ids, #ids - room + 1) end
          end
          if ms and not older then newest = ms end
          if mode >= '2' and not older then
            report_at = i
          elseif mode == '1' and not older then
            status_at = i
          end
        elseif stream == 'l' and T[6] == 'device.disconnected' and stateful then
          if call('EXISTS', prefix .. 'last:' .. ident) == 1 then
            try('HSET', prefix .. 'last:' .. ident, 'online', '0')
          end
          if holder == instance then try('DEL', prefix .. 'session:' .. ident) end
        end
      end
    end
    if code ~= 'p' then plain = false end
    codes[#codes + 1] = code
    -- a frame is refused if any of its events was, else published if any was, else a duplicate
    if outcome ~= '-' then
      local mine = code
      if outcome ~= 'p' and code == 'p' then mine = outcome end
      if frame == nil or mine == 'r' or (frame == 'd' and mine ~= 'd') then frame = mine end
    end
    i = i + size
  end
  count(frame)
  frame = nil
  if stateful then
    local last_key = prefix .. 'last:' .. ident
    local write = {}
    if ids ~= before then
      write[1], write[2] = 'ids', ids
    end
    if newest ~= stamp then
      write[#write + 1] = 'newest'
      write[#write + 1] = string.format('%d', newest)
    end
    if private ~= '' and not away and (holder or received_any) then
      write[#write + 1] = 'private'
      write[#write + 1] = private
    end
    if not holder and received_any then
      write[#write + 1] = 'holder'
      write[#write + 1] = instance
    end
    if #write > 0 then try('HSET', state_key, unpack(write)) end
    if report_at then
      local received, j = A[report_at + 6], report_at + 8
      L[2], L[4], L[6], L[8] = A[report_at + 3], received, A[report_at + 5], received
      for at = 10, MOVED, 2 do
        L[at] = A[j]
        j = j + 1
      end
      if full or refresh then
        L[22], L[24] = A[report_at + 7], device_id
        for at = 26, #L, 2 do
          L[at] = A[j]
          j = j + 1
        end
        try('HSET', last_key, unpack(L))
      else
        try('HSET', last_key, unpack(L, 1, MOVED))
      end
    end
    if status_at and status_at > (report_at or 0) then
      local received, j = A[status_at + 6], status_at + 8
      local some = {'seen', received, 'received', received, 'protocol', A[status_at + 7], 'online', '1'}
      for at = 20, DATA - 2, 2 do -- a status without a column leaves it as it was
        if A[j] ~= '' then
          some[#some + 1] = P[at - 1]
          some[#some + 1] = A[j]
        end
        j = j + 1
      end
      try('HSET', last_key, unpack(some))
    end
    if refresh then
      if not report_at and not status_at then try('HSET', last_key, 'seen', A[17], 'online', '1') end
      if ttl == '0' then
        try('PERSIST', state_key)
        try('PERSIST', last_key)
      else
        try('EXPIRE', state_key, ttl)
        try('EXPIRE', last_key, ttl)
      end
      if not holder or holder == instance then
        try('SET', prefix .. 'session:' .. ident, instance, 'EX', A[7])
      end
      try('ZADD', prefix .. 'seen', A[6], ident)
    end
  end
end

for at, stream in ipairs(order) do
  local maxlen = A[10 + at]
  if touched[stream] and maxlen ~= '0' then try('XTRIM', prefix .. streams[stream], 'MAXLEN', '~', maxlen) end
end

local key = prefix .. 'ledger:' .. A[3]
local limited, dropped = tonumber(A[8]), tonumber(A[9])
local all = (ledger.all or 0) + limited + dropped
if all > 0 then
  try('HINCRBY', key, 'received', all)
  for letter, name in pairs(names) do
    if ledger[letter] then try('HINCRBY', key, name, ledger[letter]) end
  end
  if limited > 0 then try('HINCRBY', key, 'limited', limited) end
  if dropped > 0 then try('HINCRBY', key, 'dropped', dropped) end
  try('EXPIRE', key, 2592000)
end

return {'ok', number, plain and '' or table.concat(codes), reasons, lost, faults}
