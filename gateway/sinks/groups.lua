-- Looks after a stream that consumer groups are required to read: trims by its rules no further than all of them have
-- read, to the memory's ceiling whatever they have read, and counts what went unread.  One script, so that nothing is
-- read or trimmed between a look and what follows from it.
--
-- KEYS  1 stream  2 <prefix>trimmed  3 <prefix>ledger:<producer>
-- ARGV  1 short name of the stream  2 id before which the time limit trims; '' none  3 entries; 0 any number
--       4 ceiling  5 seconds that the ledger is kept  6... groups
-- <prefix>trimmed has two fields a group: '<stream>/<group>', what it lost so far, and 'upto <stream>/<group>', how
-- far that was counted: how many entries of the stream had gone, and the oldest that was there.
--
-- Returns {} without a stream, else length, entries ever added (-1: a server before 7.0 does not say), the oldest id,
-- the newest id, and of each group: 1 if it exists, the id of the first entry that it has not read ('': none), entries
-- it is behind (-1: not known), lost now, lost in all.

local call, pcall_ = redis.call, redis.pcall
local key, trimmed, ledger = KEYS[1], KEYS[2], KEYS[3]
local stream, oldest, entries, ceiling, expiry = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local GROUPS = 6
-- entries that the rules take at once, so that a look never blocks the server for long
local AT_ONCE = 500000
local PENDING = 1000

local function fields(row)
  local found = {}
  for at = 1, #row, 2 do found[row[at]] = row[at + 1] end
  return found
end

local function parts(id)
  local ms, sequence = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(sequence), ms
end

local function before(id, other)
  local ms, sequence = parts(id)
  local other_ms, other_sequence = parts(other)
  return ms < other_ms or (ms == other_ms and sequence < other_sequence)
end

local function after(id)
  local _, sequence, ms = parts(id)
  return ms .. '-' .. string.format('%.0f', sequence + 1)
end

local function look()
  local row = pcall_('XINFO', 'STREAM', key)
  if row.err then return nil, row end
  local facts = fields(row)
  local entry, last = facts['first-entry'], facts['last-generated-id']
  return facts.length, facts['entries-added'], entry and entry[1] or after(last), last
end

local length, added, first, last = look()
if not length then
  if string.find(added.err, 'no such key', 1, true) then return {} end
  return added
end
local gone_before = added and added - length

-- what each group has not read begins at its floor: what was not delivered, or is not acknowledged yet
local found = {}
for _, row in ipairs(call('XINFO', 'GROUPS', key)) do
  local group = fields(row)
  found[group.name] = group
end
local floor = nil -- of all
for at = GROUPS, #ARGV do
  local group, its = found[ARGV[at]], '0-0' -- a group that does not exist has read nothing
  if group then
    its = after(group['last-delivered-id'])
    if group.pending > 0 then
      -- an entry that has gone stays pending until it is acknowledged: it holds nothing
      local row = call('XPENDING', key, ARGV[at], first, '+', 1)[1]
      if row and before(row[1], its) then its = row[1] end
    end
    group.floor = its
  end
  if not floor or before(its, floor) then floor = its end
end

-- a LIMIT of its own: without one, ~ takes a hundred nodes at most
if oldest ~= '' then
  call('XTRIM', key, 'MINID', '~', before(floor, oldest) and floor or oldest, 'LIMIT', AT_ONCE)
end
length = call('XLEN', key)
if entries > 0 and length > entries then
  call('XTRIM', key, 'MINID', '~', floor, 'LIMIT', math.min(length - entries, AT_ONCE))
end

-- with no memory left for what is counted, nothing is lost either
local counting = true
for at = GROUPS, #ARGV do
  local answer = pcall_('HINCRBY', trimmed, stream .. '/' .. ARGV[at], 0)
  if type(answer) == 'table' and answer.err then counting = false end
end
local taken = 0
length = call('XLEN', key)
if counting and length > ceiling then
  taken = call('XTRIM', key, 'MAXLEN', '~', ceiling, 'LIMIT', length - ceiling)
end

length, added, first = look()
local gone = added and added - length
local all_lost = 0
local answer = {length, added or -1, first, last}
for at = GROUPS, #ARGV do
  local name, field, group = ARGV[at], stream .. '/' .. ARGV[at], found[ARGV[at]]
  local mark = call('HGET', trimmed, 'upto ' .. field)
  -- of a group that is seen for the first time, what it says itself, else what goes now
  local counted, seen = gone_before, '-'
  if mark then
    counted, seen = string.match(mark, '^(%S+) (%S+)$')
    counted = tonumber(counted)
  end
  local lost, behind = 0, -1
  if not group then
    if gone and counted then lost = math.max(gone - counted, 0) end
    behind = length
  else
    local delivered = group['last-delivered-id']
    local read, now = group['entries-read'] or nil, nil
    if added then
      if delivered == last then
        -- Redis before 7.4 does not add to entries-read what a group had to skip
        if read and mark then lost = math.max(added - read, 0) end
        now = added
      elseif before(delivered, first) then
        if read then lost = math.max(gone - read, 0) elseif counted then lost = math.max(gone - counted, 0) end
        now = math.max(gone, read or 0)
      end
      -- The group stays where it is.  What it lost counts as read, so that it is not counted again, not even after a
      -- restart, and its lag is what it can still read.
      if counting and now and now ~= read then
        call('XGROUP', 'SETID', key, name, delivered, 'ENTRIESREAD', now)
      end
      read = now or read
      if read then behind = math.max(added - read, 0) + group.pending end
    elseif before(delivered, first) then
      lost = taken -- at least
    end
    if counting and group.pending > 0 then
      local start, rows = seen, nil
      repeat
        rows = call('XPENDING', key, name, start, '(' .. first, PENDING)
        lost = lost + #rows
        if #rows > 0 then start = '(' .. rows[#rows][1] end
      until #rows < PENDING
    end
  end
  if counting then
    local upto = string.format('%.0f %s', gone or 0, first)
    if upto ~= mark then call('HSET', trimmed, 'upto ' .. field, upto) end
    if lost > 0 then call('HINCRBY', trimmed, field, lost) end
    all_lost = all_lost + lost
  else
    lost = 0
  end
  local unread = call('XRANGE', key, group and group.floor or '-', '+', 'COUNT', 1)[1]
  answer[#answer + 1] = {group and 1 or 0, unread and unread[1] or '', behind, lost,
    tonumber(call('HGET', trimmed, field) or '0')}
end
if all_lost > 0 then
  call('HINCRBY', ledger, 'trimmed_unread', all_lost)
  call('EXPIRE', ledger, expiry)
end
return answer
