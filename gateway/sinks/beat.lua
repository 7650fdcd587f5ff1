-- Writes the heartbeat of an instance, together with what its ledgers hold at this very moment.
--
-- KEYS  1 <prefix>instance:<instance>  2 <prefix>producer:<id> of its present producer
--       3... <prefix>ledger:<id> of every producer that it has had
-- ARGV  1 seconds that the beat is kept  2 seconds that ledgers and the producer's number are kept
--       3 the beat, a JSON object without its last brace  4... ids of the producers, in the order of KEYS
--
-- All batches that were written before the beat on the same connection are stored when it is; "last" says which.
-- What a running instance counts by does not expire under it.
--
-- Returns {boot, host} of the beat that was there before; '' where there was none, or it does not say.

local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then return nil end
  return answer
end

local function figure(text)
  if string.find(text, '^%-?%d+$') and #text < 16 then return text end
  return cjson.encode(text) -- somebody else wrote it
end

local ledgers = {}
for at = 3, #KEYS do
  local fields, found = try('HGETALL', KEYS[at]) or {}, {}
  for field = 1, #fields, 2 do found[#found + 1] = cjson.encode(fields[field]) .. ':' .. figure(fields[field + 1]) end
  ledgers[#ledgers + 1] = cjson.encode(ARGV[at + 1]) .. ':{' .. table.concat(found, ',') .. '}'
end
local before = try('GET', KEYS[1]) or ''
local beat = ARGV[3] .. ',"last":' .. figure(try('GET', KEYS[2]) or '0')
redis.call('SET', KEYS[1], beat .. ',"ledgers":{' .. table.concat(ledgers, ',') .. '}}', 'EX', ARGV[1])
for at = 2, #KEYS do try('EXPIRE', KEYS[at], ARGV[2]) end
return {string.match(before, '"boot": "(%x+)"') or '', string.match(before, '"host": "([^"]*)"') or ''}
