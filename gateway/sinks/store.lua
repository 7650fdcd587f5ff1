-- Appends one batch of a producer: events, last state, sessions, ledger, and the producer's number.
--
-- KEYS[1]  <prefix>producer:<id>
-- ARGV     1 prefix  2 number  3 producer id  4 instance  5 source  6 received ms  7 session ttl s
--          8 limited  9 dropped  10 count of groups
--          11-16 MAXLEN of position event link result raw dead; 0: not trimmed here  17 received, RFC 3339
-- then for each group (one ident, touched once) one argument of fields that end in a zero byte:
--   ident, device_id, flags (s: stateful, r: refresh expiry), ttl s (0: for ever), private state ('': as it is),
--   count of events
--   then for each event a record, see gateway/records.py:
--     4 bytes: stream letter, first of its frame 1/0, last state: 3 position that differs from the one before only
--       in where it is (both with an altitude, or both without), 2 any other position, 1 status, 0 not; outcome
--     8 bytes: how its id begins; then fields: device time ms, '' or f (refused, it lies in the future), id, time, received,
--     for the position stream latitude, longitude, altitude_m, speed_kmh, course_deg; type, protocol,
--     for the position stream valid ... peer; data
-- and, where there are any, one more: frames that were refused with the batch that they were in, and are in quarantine
-- Outcomes: p published or duplicate, u undecodable, a unauthorised, n unrecognised, - not a frame.
--
-- Returns {status, number, codes, reasons, lost, faults}: status ok | already | gap; codes one letter an event
-- (p published, d duplicate, r refused), '' when all are p; reasons of the refused; idents that another instance
-- holds; what went wrong beside the events.
--
-- The first write is the number's SET: memory limits and a lack of replicas refuse it, and then nothing was
-- written.  After it every write is a pcall: a script is not rolled back.

local call, pcall_, unpack, sub, find, cut = redis.call, redis.pcall, unpack, string.sub, string.find, struct.unpack
local pack = struct.pack
local A = ARGV
local prefix, number, instance = A[1], tonumber(A[2]), A[4]

local last = tonumber(call('GET', KEYS[1]) or '0')
if number <= last then
  -- A write that changes nothing: WAIT and WAITAOF confirm the writes of their own connection only, and a batch that
  -- is sent again on a new one has none there yet.  And a server that has become a replica says so here.
  call('EXPIRE', KEYS[1], 2592000)
  return {'already', last}
end
if number > last + 1 then return {'gap', last} end

-- what is remembered of all idents, with one call
local FIRST, groups = 18, tonumber(A[10])
local recent_keys, recents = {}, {}
if groups > 0 then
  local start = prefix .. 'recent:'
  for group = 1, groups do recent_keys[group] = start .. cut('s', A[FIRST + group - 1]) end
  recents = call('MGET', unpack(recent_keys))
end

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
local TYPE, LATE = 6, 48
local POSITION = 'c8' .. string.rep('s', 24)
local OTHER = 'c8' .. string.rep('s', 7)
local WHERE = 'c8' .. string.rep('s', 9)
-- arguments of HSET for the last state, the same way; what changes with each report of a moving device stands first
local L = {
  'position_id', '', 'seen', '', 'time', '', 'received', '', 'latitude', '', 'longitude', '',
  'speed_kmh', '', 'course_deg', '', 'altitude_m', '', 'online', '1', 'protocol', '', 'device_id', '',
  'valid', '', 'satellites', '', 'ignition', '', 'immobilizer', '', 'external_power', '', 'battery_pct', '',
  'odometer_km', '', 'levels', '', 'status_word', '', 'late', '', 'transport', '', 'peer', ''}
local MOVED, FLAT = 18, 16 -- with and without an altitude

local reasons, lost, faults = {}, {}, {}
local codes, appended = nil, 0 -- a letter an event, once there is another one than p; events so far
local ledger = {p = 0, d = 0, r = 0, u = 0, a = 0, n = 0}
local names = {p = 'published', d = 'duplicate', r = 'refused', u = 'undecodable', a = 'unauthorised', n = 'unrecognised'}
local frame = nil -- outcome of the frame that is being appended

-- what a head says, read once for each kind of it
local heads = {}
local function read_head(head)
  local stream = sub(head, 1, 1)
  local fact = {stream, prefix .. streams[stream], stream == 'p' and P or E, stream == 'p',
    sub(head, 2, 2) == '1', sub(head, 3, 3), sub(head, 4, 4)}
  heads[head] = fact
  return fact
end

local function odd(code)
  if not codes then
    codes = {}
    for at = 1, appended do codes[at] = 'p' end
  end
  codes[appended + 1] = code
end

local function try(...)
  local answer = pcall_(...)
  if type(answer) == 'table' and answer.err then
    if #faults < 8 then faults[#faults + 1] = answer.err end
    return nil
  end
  return answer
end

-- gateway:recent:<ident>, a string that is appended to, since little is written so: 16 bytes that say which instance
-- holds the device, a byte, then a record of each of the newest reports, oldest first: 8 bytes of its id, and in 6 the
-- newest device time, in ms, when it was stored (0: none).  When there are more than FRESH of them, their ids move to
-- the field older of gateway:state:<ident>, 8 bytes each.  A report that is newer than the newest device time can't be
-- remembered, so older is not read for it; but for a device that once sent a time of the future, which counts as none
-- and may come again when it does: the byte is then '!', else '-'.
local HOLDER, HEAD, RECORD, STAMP = 16, 17, 14, '>I6'
local FRESH, ID = 16, 8
-- bytes of ids in older: of any device, and of one that sends late reports
local ROOM, LATE_ROOM = 64 * ID, 512 * ID
local STRANGER_TTL = '3600'
-- what is kept of an ident as long as its last state is
local KEPT = {'recent:', 'state:', 'last:'}
local mark = sub(redis.sha1hex(instance), 1, HOLDER)

-- whether an id stands in a row of records of this size, which begins after this byte
local function among(ids, key, size, start)
  local at = find(ids, key, start + 1, true)
  while at and (at - start - 1) % size ~= 0 do at = find(ids, key, at + 1, true) end
  return at ~= nil
end

-- Adds the ids of a group's reports.
local function remember(key, state_key, recent, keys, newest, late, future)
  local stamp, records = pack(STAMP, newest), keys
  if #keys == ID then
    records = keys .. stamp
  else
    records = {}
    for at = 1, #keys, ID do records[#records + 1] = sub(keys, at, at + ID - 1) .. stamp end
    records = table.concat(records)
  end
  if recent == '' then
    try('SET', key, mark .. (future and '!' or '-') .. records)
  elseif not future and #recent + #records <= HEAD + FRESH * RECORD then
    try('APPEND', key, records)
  else
    local head = sub(recent, 1, HOLDER) .. (future and '!' or sub(recent, HEAD, HEAD))
    local row, older = recent .. records, try('HGET', state_key, 'older') or ''
    local ids = {older}
    -- all but the last, which says what the newest time is
    for at = HEAD + 1, #row - RECORD, RECORD do ids[#ids + 1] = sub(row, at, at + ID - 1) end
    local room = (late or #older > ROOM) and LATE_ROOM or ROOM
    if try('HSET', state_key, 'older', sub(table.concat(ids), -room)) then
      try('SET', key, head .. sub(row, -RECORD), 'KEEPTTL')
    end
  end
end

for group = 1, groups do
  local argument = A[FIRST + group - 1]
  local ident, device_id, flags, ttl, private, events, at = cut('ssssss', argument)
  P[14], P[18], E[14], E[18] = ident, device_id, ident, device_id
  local stateful, refresh = flags ~= '', flags == 'sr'
  local recent, newest = stateful and recents[group] or '', 0
  if #recent > HEAD and (#recent - HEAD) % RECORD == 0 then
    newest = cut(STAMP, recent, #recent - 5)
  else
    recent = '' -- nothing yet, or somebody else wrote it
  end
  local state_key, older = prefix .. 'state:' .. ident, nil
  local keys, late_sender, future = '', false, false
  local calm, held = sub(recent, HEAD, HEAD) ~= '!', recent ~= ''
  -- another instance holds the device: what this one thinks of it is out of date
  local away = held and sub(recent, 1, HOLDER) ~= mark
  local received_any = false
  if away then lost[#lost + 1] = ident end
  local skip = false
  local gone = false -- the session ends with this group
  local report_at, status_at, full = nil, nil, false -- where in the argument the last state stands
  local fix_at = nil -- and the last report with a fix
  for _ = 1, tonumber(events) do
    local head = sub(argument, at, at + 3)
    local fact = heads[head] or read_head(head)
    local is_position, first, mode, outcome = fact[4], fact[5], fact[6], fact[7]
    local start = at + 4
    local key8, when
    if mode == '2' then full = true end
    if is_position then
      key8, when, P[4], P[10], P[12], P[20], P[22], P[24], P[26], P[28], P[6], P[16], P[30], P[32], P[34], P[36],
        P[38], P[40], P[42], P[44], P[46], P[48], P[50], P[52], P[54], at = cut(POSITION, argument, start)
    else
      key8, when, E[4], E[10], E[12], E[6], E[16], E[20], at = cut(OTHER, argument, start)
    end
    local code, ms = 'p', when ~= '' and tonumber(when)
    if first then
      if frame then ledger[frame] = ledger[frame] + 1 end
      frame = nil
      skip = false
      if stateful and outcome == 'p' then
        skip = among(recent, key8, RECORD, HEAD) or (keys ~= '' and among(keys, key8, ID, 0))
        if not skip and held and not (calm and ms and ms > newest) then
          older = older or try('HGET', state_key, 'older') or ''
          skip = among(older, key8, ID, 0)
        end
      end
    end
    if outcome ~= '-' then received_any = true end
    if skip or (away and outcome == '-') then
      code = 'd'
    else
      local late = ms and ms < newest
      if late and is_position and P[LATE] == '' then P[LATE] = 'order' end
      local answer = pcall_('XADD', fact[2], '*', unpack(fact[3]))
      if type(answer) == 'table' and answer.err then
        code = 'r'
        reasons[#reasons + 1] = answer.err
      else
        touched[fact[1]] = true
        if stateful and outcome == 'p' then
          if first then
            -- a device that sends late reports is remembered further back, for as long as its state is kept
            if is_position and P[LATE] ~= '' then late_sender = true end
            if when == 'f' then future = true end
            keys = keys .. key8
          end
          if ms and not late then newest = ms end
          if mode >= '2' and not late then
            report_at, gone = start, false
            if P[20] ~= '' then fix_at = start end
          elseif mode == '1' and not late then
            status_at, gone = start, false
          end
        elseif fact[1] == 'l' and E[TYPE] == 'device.disconnected' and stateful then
          gone = true
        end
      end
    end
    if codes or code ~= 'p' then odd(code) end
    appended = appended + 1
    -- a frame is refused if any of its events was, else published if any was, else a duplicate
    if outcome ~= '-' then
      local mine = code
      if outcome ~= 'p' and code == 'p' then mine = outcome end
      if frame == nil or mine == 'r' or (frame == 'd' and mine ~= 'd') then frame = mine end
    end
  end
  if frame then ledger[frame] = ledger[frame] + 1 end
  frame = nil
  if stateful then
    local last_key = prefix .. 'last:' .. ident
    if private ~= '' and not away and (held or received_any) then
      try('HSET', state_key, 'private', private)
    end
    if keys ~= '' then remember(recent_keys[group], state_key, recent, keys, newest, late_sender, future) end
    if recent == '' and received_any and not refresh then -- somebody deleted it: nothing stays for ever
      refresh, ttl = true, STRANGER_TTL
    end
    if report_at then
      local _
      if full or refresh or away then
        L[24] = device_id
        _, _, L[2], L[6], L[8], L[10], L[12], L[18], L[14], L[16], _, L[22], L[26], L[28], L[30], L[32], L[34], L[36],
          L[38], L[40], L[42], L[44], L[46], L[48] = cut(POSITION, argument, report_at)
        L[4] = L[8]
        if L[10] == '' then -- without a fix: where the device was last stays
          if fix_at then
            local _, _, _, time, _, latitude, longitude = cut(WHERE, argument, fix_at)
            try('HSET', last_key, 'fix_time', time, 'fix_latitude', latitude, 'fix_longitude', longitude)
          else
            local fix = try('HMGET', last_key, 'time', 'latitude', 'longitude')
            if fix and fix[2] and fix[2] ~= '' then
              try('HSET', last_key, 'fix_time', fix[1], 'fix_latitude', fix[2], 'fix_longitude', fix[3])
            end
          end
        end
        try('HSET', last_key, unpack(L))
      else
        _, _, L[2], L[6], L[8], L[10], L[12], L[18], L[14], L[16] = cut(WHERE, argument, report_at)
        L[4] = L[8]
        try('HSET', last_key, unpack(L, 1, L[18] == '' and FLAT or MOVED))
      end
    end
    if status_at and status_at > (report_at or 0) then
      local S = {cut(POSITION, argument, status_at)}
      local some = {'seen', S[5], 'received', S[5], 'protocol', S[12], 'online', '1'}
      for j = 6, 24 do -- a status without a column leaves it as it was
        local name = j <= 10 and 2 * j + 7 or 2 * j + 3
        if S[j] ~= '' and (j <= 10 or j > 12) then
          some[#some + 1] = P[name]
          some[#some + 1] = S[j]
        end
      end
      try('HSET', last_key, unpack(some))
    end
    if refresh then
      if not report_at and not status_at then try('HSET', last_key, 'seen', A[17], 'online', '1') end
      if ttl == '0' then
        for _, kind in ipairs(KEPT) do try('PERSIST', prefix .. kind .. ident) end
      else
        for _, kind in ipairs(KEPT) do try('EXPIRE', prefix .. kind .. ident, ttl) end
      end
      -- a session that began while nobody could be asked is taken when it is asked for: until then it is nobody's
      if flags == 'sr' and not away then
        try('SET', prefix .. 'session:' .. ident, instance, 'EX', A[7])
      end
      try('ZADD', prefix .. 'seen', A[6], ident)
    end
    if gone then
      if try('EXISTS', last_key) == 1 then try('HSET', last_key, 'online', '0') end
      local session_key = prefix .. 'session:' .. ident
      if try('GET', session_key) == instance then try('DEL', session_key) end
    end
  end
end

for at, stream in ipairs(order) do
  local maxlen = A[10 + at]
  if touched[stream] and maxlen ~= '0' then try('XTRIM', prefix .. streams[stream], 'MAXLEN', '~', maxlen) end
end

local key = prefix .. 'ledger:' .. A[3]
local limited, dropped = tonumber(A[8]), tonumber(A[9])
local all = limited + dropped
ledger.r = ledger.r + tonumber(A[FIRST + groups] or '0')
for _, frames in pairs(ledger) do all = all + frames end
if all > 0 then
  try('HINCRBY', key, 'received', all)
  for letter, name in pairs(names) do
    if ledger[letter] > 0 then try('HINCRBY', key, name, ledger[letter]) end
  end
  if limited > 0 then try('HINCRBY', key, 'limited', limited) end
  if dropped > 0 then try('HINCRBY', key, 'dropped', dropped) end
  try('EXPIRE', key, 2592000)
end

return {'ok', number, codes and table.concat(codes) or '', reasons, lost, faults}
