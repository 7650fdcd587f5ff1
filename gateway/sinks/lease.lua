-- Takes a lease, or keeps it.
--
-- KEYS  1 the lease
-- ARGV  1 who asks  2 seconds
--
-- Returns 1: who asks has it, else 0.

local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then return redis.call('EXPIRE', KEYS[1], ARGV[2]) end
if holder then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
