-- Texts by SMS: those that are to be sent and what became of them, and those that came in.
--
-- KEYS[1]  any key of the shard
-- ARGV     1 what to do  2 prefix  3 source  4 time, RFC 3339  5 MAXLEN of the result stream (0: none)
--
-- <prefix>sms             ids of texts that somebody has to look at, by the ms at which
-- <prefix>sms:text:<id>   a text: id ident protocol number template name ref about state attempt parts expires_ms reason;
--                         about: the JSON object that each of its events begins with
-- <prefix>sms:id:<id>     of the provider's name of a text: our own; or early:<state>:<reason>, where a receipt came before
-- <prefix>sms:seen:<...>  a text that came in and may be brought again
-- <prefix>sms:part:<...>  the parts of a text that came in so far
-- <prefix>sms:rate:<...>  how many texts a device was sent within an hour, and everybody
--
-- A text is given to one sender, once: who takes it has it in state sending, and what became of it then is said by that
-- attempt.  Where nobody says anything until the lease is over, it is uncertain, and never sent again.  Times are the
-- server's.

local call, sub = redis.call, string.sub
local A = ARGV
local prefix, source, time = A[2], A[3], A[4]
local WEEK, HOUR = 604800, 3600
-- so long after nothing could be sent a text is looked at again
local LOOK = 1000

local clock = call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local all = prefix .. 'sms'

-- What is of another type than it should be says nothing.
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then return nil end
  return answer
end

local function text_key(id) return prefix .. 'sms:text:' .. id end
local function provider_key(id) return prefix .. 'sms:id:' .. id end

local function append(stream, maxlen, fields)
  if maxlen ~= '0' then
    call('XADD', prefix .. stream, 'MAXLEN', '~', maxlen, '*', unpack(fields))
  else
    call('XADD', prefix .. stream, '*', unpack(fields))
  end
end

-- An event of a text; extra: JSON of what it says behind about.
local function publish(id, kind, extra)
  local kept = call('HMGET', text_key(id), 'ident', 'protocol', 'about', 'event')
  local ident, about = kept[1] or '', kept[3] or '{}'
  local device_id = ident ~= '' and try('HGET', prefix .. 'registry:' .. ident, 'device_id') or ''
  local number = call('HINCRBY', text_key(id), 'event', 1)
  local data = about == '{}' and '{' .. sub(extra, 2) .. '}' or sub(about, 1, -2) .. extra .. '}'
  local event_id = sub(redis.sha1hex('sms\0' .. id .. '\0' .. number), 1, 32)
  append('result', A[5], {'v', '1', 'id', event_id, 'type', 'sms.' .. kind, 'source', source, 'time', time,
    'received', time, 'ident', ident, 'protocol', kept[2] or '', 'device_id', device_id or '', 'data', data})
end

local function settle(id)
  call('ZREM', all, id)
  call('EXPIRE', text_key(id), WEEK)
end

-- add: 6 id  7 ident  8 ms until it expires  9 how many an hour to the device  10 and in all
--   then fields and values.  Returns ok | known | device | all: known: there is one of that id; device, all: too many.
local function add()
  local id, ident = A[6], A[7]
  local key = text_key(id)
  if call('EXISTS', key) == 1 then return 'known' end
  local rates = {{prefix .. 'sms:rate:' .. ident, A[9], 'device'}, {prefix .. 'sms:rate', A[10], 'all'}}
  for _, rate in ipairs(rates) do
    if (tonumber(try('GET', rate[1]) or '0') or 0) >= tonumber(rate[2]) then return rate[3] end
  end
  call('ZADD', all, now, id)
  call('HSET', key, 'id', id, 'ident', ident, 'state', 'queued', 'attempt', '0', 'expires_ms', now + tonumber(A[8]),
    unpack(A, 11))
  call('EXPIRE', key, WEEK + math.ceil(tonumber(A[8]) / 1000))
  for _, rate in ipairs(rates) do
    if call('INCR', rate[1]) == 1 then call('EXPIRE', rate[1], HOUR) end
  end
  return 'ok'
end

-- take: 6 how many  7 ms of the lease  8 whether any can be sent now 1/0.  Returns {{what, ms until it expires, fields and values} of each}: send |
-- expired: it was never sent | uncertain: whoever sent it did not say what became of it.
local function take()
  local found = {}
  for _, id in ipairs(call('ZRANGEBYSCORE', all, '-inf', now, 'LIMIT', 0, tonumber(A[6]))) do
    local key = text_key(id)
    local kept = try('HMGET', key, 'state', 'expires_ms') or {}
    local left = (tonumber(kept[2] or '0') or 0) - now
    local what = nil
    if kept[1] == 'queued' and left > 0 and A[8] == '0' then
      call('ZADD', all, math.min(now + LOOK, now + left), id)
    elseif kept[1] == 'queued' and left > 0 then
      what = 'send'
      call('HINCRBY', key, 'attempt', 1)
      call('HSET', key, 'state', 'sending')
      call('ZADD', all, now + tonumber(A[7]), id)
    elseif kept[1] == 'queued' then
      what = 'expired'
      local reason = call('HGET', key, 'reason')
      local why = 'it could not be sent in time' .. (reason and reason ~= '' and ': ' .. reason or '')
      publish(id, 'failed', ',"reason":' .. cjson.encode(why))
      call('HSET', key, 'state', 'expired', 'reason', why)
      settle(id)
    elseif kept[1] == 'sending' then
      what = 'uncertain'
      local why = 'whoever sent it ended before it was known what became of it'
      publish(id, 'failed', ',"uncertain":true,"reason":' .. cjson.encode(why))
      call('HSET', key, 'state', 'uncertain', 'reason', why)
      settle(id)
    else
      call('ZREM', all, id)
    end
    if what then found[#found + 1] = {what, left, call('HGETALL', key)} end
  end
  return found
end

local function receipt(id, state, reason)
  local key = text_key(id)
  local kept = call('HMGET', key, 'state', 'parts', 'delivered')
  if kept[1] ~= 'accepted' or state == 'pending' then return 'ignored' end
  if state == 'delivered' then
    if call('HINCRBY', key, 'delivered', 1) < tonumber(kept[2] or '1') then return 'part' end
    publish(id, 'delivered', '')
  else
    publish(id, 'failed', ',"reason":' .. cjson.encode('not delivered: ' .. reason))
  end
  call('HSET', key, 'state', state, 'reason', reason)
  return state
end

-- sent: 6 id  7 attempt  8 outcome  9 reason  10 ms after which a temporary one is tried again  11 seconds for which
--   receipts are awaited  then the provider's names
-- Returns {ok | stale, state that follows}.
local function sent()
  local id, outcome, reason = A[6], A[8], A[9]
  local key = text_key(id)
  local kept = call('HMGET', key, 'state', 'attempt', 'expires_ms')
  -- one whose lease was over is uncertain by then, and its provider may still have said what became of it
  if kept[2] ~= A[7] or (kept[1] ~= 'sending' and not (kept[1] == 'uncertain' and outcome == 'accepted')) then
    return {'stale', kept[1] or ''}
  end
  local state = outcome
  if outcome == 'temporary' then
    state = 'queued'
    call('HSET', key, 'state', state, 'reason', reason)
    call('ZADD', all, math.min(now + tonumber(A[10]), math.max(tonumber(kept[3] or '0') or 0, now)), id)
    return {'ok', state}
  end
  local parts = #A - 11
  if outcome == 'accepted' then
    call('HSET', key, 'state', state, 'reason', '', 'parts', math.max(parts, 1))
    publish(id, 'sent', '')
  else
    local doubt = outcome == 'uncertain' and ',"uncertain":true' or ''
    publish(id, 'failed', doubt .. ',"reason":' .. cjson.encode(reason))
    call('HSET', key, 'state', state, 'reason', reason)
  end
  settle(id)
  for at = 12, #A do
    local name = provider_key(A[at])
    local early = try('GET', name)
    call('SET', name, id, 'EX', tonumber(A[11]))
    if early and sub(early, 1, 6) == 'early:' then
      local came, why = string.match(early, '^early:(%a+):(.*)$')
      if came then
        local then_ = receipt(id, came, why)
        if then_ == 'delivered' or then_ == 'failed' then state = then_ end
      end
    end
  end
  return {'ok', state}
end

-- receipt: 6 the provider's name  7 state  8 reason.  Returns {what became of it, fields and values of the text}.
local function receive_receipt()
  local name = provider_key(A[6])
  local id = try('GET', name)
  if not id or sub(id, 1, 6) == 'early:' then
    call('SET', name, 'early:' .. A[7] .. ':' .. A[8], 'EX', HOUR)
    return {'early', {}}
  end
  local became = receipt(id, A[7], A[8])
  return {became, call('HGETALL', text_key(id))}
end

-- receive: 6 name under which it is known again (empty: none)  7 for how many seconds  then for each event: its stream,
--   the MAXLEN of that, how many fields and values follow, and these.  Returns ok | known.
local function receive()
  local name = A[6] ~= '' and prefix .. 'sms:seen:' .. A[6]
  if name and try('EXISTS', name) == 1 then return 'known' end
  local at = 8
  while at <= #A do
    local fields, count = {}, tonumber(A[at + 2])
    for n = 1, count do fields[n] = A[at + 2 + n] end
    append(A[at], A[at + 1], fields)
    at = at + 3 + count
  end
  if name then call('SET', name, '1', 'EX', tonumber(A[7])) end
  return 'ok'
end

-- part: 6 key  7 number  8 total  9 text  10 seconds that it waits.  Returns all texts in order, or nothing yet.
local function part()
  local key, total, found = prefix .. 'sms:part:' .. A[6], tonumber(A[8]), {}
  call('HSET', key, A[7], A[9])
  call('EXPIRE', key, tonumber(A[10]))
  for n = 1, total do
    found[n] = call('HGET', key, n)
    if not found[n] then return {} end
  end
  return found
end

if A[1] == 'part' then return part() end
if A[1] == 'add' then return add() end
if A[1] == 'take' then return take() end
if A[1] == 'sent' then return sent() end
if A[1] == 'receipt' then return receive_receipt() end
return receive()
