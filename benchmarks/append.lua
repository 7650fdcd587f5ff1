-- The reference of the redis row: checks a producer's number, sets it, and appends a batch; nothing else.
--
-- KEYS  1 where the number is kept  2 the stream
-- ARGV  1 number  2 how many fields an entry has, then their names, then the values of one entry after the other
-- Returns the number that the server has.

local call, unpack = redis.call, unpack
local number, fields = tonumber(ARGV[1]), tonumber(ARGV[2])
local last = tonumber(call('GET', KEYS[1]) or '0')
if number ~= last + 1 then return last end
call('SET', KEYS[1], ARGV[1], 'EX', 2592000)
local entry = {}
for i = 1, fields do entry[2 * i - 1] = ARGV[2 + i] end
for at = 2 + fields, #ARGV - 1, fields do
  for i = 1, fields do entry[2 * i] = ARGV[at + i] end
  call('XADD', KEYS[2], '*', unpack(entry))
end
return number
