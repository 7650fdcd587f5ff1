-- Every step in the life of a command: its state, its event on the result stream, and who has to look at it when.
--
-- KEYS[1]  any key of the shard
-- ARGV     1 what to do  2 prefix  3 instance  4 source  5 time, RFC 3339  6 MAXLEN of the result stream (0: none)
--
-- <prefix>request:<ref>     a command's present state: entry ref ident command args by guard about protocol state final
--                           step queued_ms expires_ms, and what was sent and answered; about: the JSON object that each
--                           of its events begins with
-- <prefix>pending:<ident>   references of the commands of a device that have no final outcome, in the order of arrival
-- <prefix>pending           every such reference, by the ms at which somebody has to look at it again
--
-- A step names the step that it follows: of two that follow the same one the first wins.  Times are the server's.  The
-- event is appended first: where Redis refuses that, nothing has changed.  What somebody else wrote at one of these keys
-- is left alone, and keeps nobody but the command itself.

local call, sub = redis.call, string.sub
local A = ARGV
local prefix, instance, source, time = A[2], A[3], A[4], A[5]
local WEEK = 604800
-- so long after a command nobody holds the device of is looked at again
local LOOK = 5000
-- and so long after it may be told by SMS, where whoever holds it did not
local GRACE = 10000

local clock = call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local all = prefix .. 'pending'

-- What is of another type than it should be says nothing.
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then return nil end
  return answer
end

local function request_key(ref) return prefix .. 'request:' .. ref end
local function pending_key(ident) return prefix .. 'pending:' .. ident end

local function publish(ref, ident, protocol, about, kind, step, extra)
  local device_id = ident ~= '' and try('HGET', prefix .. 'registry:' .. ident, 'device_id') or ''
  local data = sub(about, 1, -2) .. extra .. '}'
  local id = sub(redis.sha1hex('command\0' .. ref .. '\0' .. step), 1, 32)
  local fields = {'v', '1', 'id', id, 'type', 'command.' .. kind, 'source', source, 'time', time, 'received', time,
    'ident', ident, 'protocol', protocol, 'device_id', device_id or '', 'data', data}
  if A[6] ~= '0' then
    call('XADD', prefix .. 'result', 'MAXLEN', '~', A[6], '*', unpack(fields))
  else
    call('XADD', prefix .. 'result', '*', unpack(fields))
  end
end

-- The end of a command, after its last event: nobody needs to know any more what it said, which may be a secret.
local function settle(ref, ident)
  try('HSET', request_key(ref), 'args', '{}', 'expected', '[]')
  try('LREM', pending_key(ident), 0, ref)
  try('ZREM', all, ref)
  try('EXPIRE', request_key(ref), WEEK)
end

local function holder_of(ident) return ident ~= '' and try('GET', prefix .. 'session:' .. ident) or '' end

-- accept: 7 entry  8 ref  9 ident  10 ttl ms  11 how many an hour (0: any number)  12 how many may wait
--   13 the opposite command  14 JSON of the first event behind about  15 its kind  16 why there are too many an hour
--   17 why too many wait, JSON  then fields and values of the request, about and protocol among them
-- Returns {what became of it, holder, references that it supersedes}: known: there is one with that reference;
-- again: this very entry was accepted before.
local function accept()
  local entry, ref, ident, kind = A[7], A[8], A[9], A[15]
  local key = request_key(ref)
  local before = call('HGET', key, 'entry')
  local holder = holder_of(ident)
  if before then
    if before ~= entry then return {'known', holder, {}} end
    return {'again', holder, {}}
  end
  local given, about, protocol, args, after = {}, '{}', '', 0, nil
  for at = 18, #A do given[#given + 1] = A[at] end
  for at = 1, #given, 2 do
    if given[at] == 'about' then about = given[at + 1] end
    if given[at] == 'protocol' then protocol = given[at + 1] end
    if given[at] == 'args' then args = at + 1 end
    if given[at] == 'sms_after_ms' then after = tonumber(given[at + 1]) end
  end
  local queued = tonumber(string.match(entry, '^(%d+)'))
  if not queued or queued > now then queued = now end
  local expires = queued + tonumber(A[10])
  -- when it may be told by SMS
  local sms = after and queued + after or nil
  local extra, superseded, rate = A[14], {}, prefix .. 'rate:' .. ident
  local given_before = tonumber(try('GET', rate) or '0') or 0
  if kind == 'queued' then
    local waiting = call('LRANGE', pending_key(ident), 0, -1)
    call('ZCARD', all)  -- refused before anything has changed, if it is something else
    if expires <= now then
      kind, extra = 'expired', ',"final":true,"reason":"its ttl had passed when it was read"'
    else
      if A[11] ~= '0' and given_before >= tonumber(A[11]) then
        kind, extra = 'refused', A[16]
      else
        for _, other in ipairs(waiting) do
          local kept = A[13] ~= '' and try('HMGET', request_key(other), 'command', 'final') or {}
          if kept[1] == A[13] and kept[2] ~= '1' then superseded[#superseded + 1] = other end
        end
        if #waiting - #superseded >= tonumber(A[12]) then
          kind, extra, superseded = 'refused', A[17], {}
        end
      end
    end
  end
  local final = kind ~= 'queued'
  if kind == 'queued' then
    for _, other in ipairs(superseded) do
      local fields = call('HMGET', request_key(other), 'about', 'protocol', 'state', 'step', 'attempts')
      local told = fields[3] ~= 'queued' or (tonumber(fields[5] or '0') or 0) > 0
      local why = not told and '' or ',"reason":"after it was ' .. (fields[3] == 'sending' and
        'given to the device: it may have been obeyed' or 'sent') .. '"'
      local step = (tonumber(fields[4] or '0') or 0) + 1
      publish(other, ident, fields[2] or '', fields[1] or '{}', 'superseded', step,
        ',"final":true,"superseded_by":' .. cjson.encode(ref) .. why)
      call('HSET', request_key(other), 'state', 'superseded', 'final', '1', 'step', step)
      settle(other, ident)
    end
  end
  publish(ref, ident, protocol, about, kind, 1, extra)
  if final and args > 0 then given[args] = '{}' end
  call('HSET', key, 'entry', entry, 'ref', ref, 'ident', ident, 'state', kind, 'final', final and '1' or '0', 'step', 1,
    'queued_ms', queued, 'expires_ms', expires, unpack(given))
  if sms then call('HSET', key, 'sms_ms', sms) end
  call('EXPIRE', key, WEEK + math.ceil(math.max(expires - now, 0) / 1000))
  if not final then
    if A[11] ~= '0' then
      if given_before > 0 then
        call('SET', rate, math.floor(given_before) + 1, 'KEEPTTL')
      else
        call('SET', rate, 1, 'EX', 3600)
      end
    end
    call('RPUSH', pending_key(ident), ref)
    call('EXPIRE', pending_key(ident), 2 * WEEK)
    call('ZADD', all, math.min(now + LOOK, expires, sms and math.max(sms, now) or expires), ref)
  end
  return {kind, holder, superseded}
end

-- step: 7 ref  8 the step that it follows  9 kind of its event (empty: none)  10 JSON of it behind about  11 final 1/0
--   12 ms after which somebody has to look again  13 whether only the holder of the device may 1/0
--   14 whether the ttl must not have passed 1/0  then fields and values of the request
-- Returns {ok | stale | held | late, step, ms until it expires}.
local function step()
  local ref, kind, final = A[7], A[9], A[11] == '1'
  local key = request_key(ref)
  local found = call('HMGET', key, 'step', 'final', 'ident', 'protocol', 'about', 'expires_ms')
  local ident, left = found[3] or '', (tonumber(found[6] or '0') or 0) - now
  if found[1] ~= A[8] or found[2] == '1' then return {'stale', 0, left} end
  if A[13] == '1' then
    local holder = holder_of(ident)
    if holder and holder ~= '' and holder ~= instance then return {'held', 0, left} end
  end
  if A[14] == '1' and left <= 0 then return {'late', 0, left} end
  local number, protocol = tonumber(A[8]) + 1, found[4] or ''
  for at = 15, #A, 2 do
    if A[at] == 'protocol' then protocol = A[at + 1] end
  end
  if kind ~= '' then publish(ref, ident, protocol, found[5] or '{}', kind, number, A[10]) end
  call('HSET', key, 'step', number, 'final', A[11], unpack(A, 15))
  if kind == 'sending' then call('HSET', key, 'sent_ms', now) end
  if final then
    settle(ref, ident)
  elseif A[12] ~= '' then
    local at = now + tonumber(A[12])
    try('ZADD', all, kind == 'queued' and math.min(at, now + math.max(left, 0)) or at, ref)
  end
  return {'ok', number, left}
end

-- What is stored of a command that has no outcome; nil: nothing that could be read.
local function stored(ref)
  local fields = try('HGETALL', request_key(ref))
  if not fields or #fields == 0 then return nil end
  for at = 1, #fields, 2 do
    if fields[at] == 'final' and fields[at + 1] == '1' then return nil end
  end
  return fields
end

-- load: 7 ident.  Returns {now, the fields and values of each of its commands that has no outcome yet}.
local function load()
  local key, found = pending_key(A[7]), {now}
  for _, ref in ipairs(try('LRANGE', key, 0, -1) or {}) do
    local fields = stored(ref)
    if fields then
      found[#found + 1] = fields
    else
      call('LREM', key, 0, ref)
    end
  end
  return found
end

-- due: 7 how many  8 ms for which nobody else gets them.  Returns {now, {ref, holder, fields and values} of each}.
local function due()
  local found = {now}
  for _, ref in ipairs(call('ZRANGEBYSCORE', all, '-inf', now, 'LIMIT', 0, tonumber(A[7]))) do
    local fields = stored(ref)
    if fields then
      local kept = call('HMGET', request_key(ref), 'ident', 'expires_ms', 'state', 'sms_ms')
      local expires, at = tonumber(kept[2] or '0') or 0, now + tonumber(A[8])
      -- one that waits is looked at when it may be told by SMS, and when it expires
      if kept[3] == 'queued' then
        local sms = tonumber(kept[4] or '') or 0
        if sms > now - GRACE then at = math.min(at, math.max(sms, now) + GRACE) end
        if sms > now then at = math.min(at, sms) end
        if expires > now then at = math.min(at, expires) end
      end
      call('ZADD', all, at, ref)
      found[#found + 1] = {ref, holder_of(kept[1] or ''), fields}
    else
      call('ZREM', all, ref)
    end
  end
  return found
end

-- drop: 7 ref  8 JSON of its last event behind about.  The end of a command of which what is stored makes no sense.
local function drop()
  local ref = A[7]
  local fields = call('HMGET', request_key(ref), 'ident', 'protocol', 'about', 'step', 'final')
  if fields[5] ~= '1' then
    local ident, about = fields[1] or '', fields[3] or ''
    local there, object = pcall(cjson.decode, about)
    if not there or type(object) ~= 'table' or sub(about, 1, 2) ~= '{"' or sub(about, -1) ~= '}' then
      about = '{"ref":' .. cjson.encode(ref) .. '}'
    end
    local step = (tonumber(fields[4] or '0') or 0) + 1
    local known = #ident >= 3 and #ident <= 32 and not string.find(ident, '[^0-9A-Za-z_.-]')
    publish(ref, known and ident or '', fields[2] or '', about, 'failed', step, A[8])
    call('HSET', request_key(ref), 'state', 'failed', 'final', '1', 'step', step)
  end
  settle(ref, fields[1] or '')
  return 'ok'
end

if A[1] == 'accept' then return accept() end
if A[1] == 'step' then return step() end
if A[1] == 'load' then return load() end
if A[1] == 'drop' then return drop() end
return due()
