-- Takes the sessions of idents and reads what is kept of each.
--
-- ARGV  1 prefix  2 instance  3 session ttl s, then the idents
-- Returns for each ident {known 1/0, held 1/0, ids, newest ms, private state, registry fields and values}.

local prefix, instance = ARGV[1], ARGV[2]
local answers = {}

local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then return nil end
  return answer
end

for i = 4, #ARGV do
  local ident = ARGV[i]
  local state_key, session_key = prefix .. 'state:' .. ident, prefix .. 'session:' .. ident
  local state = try('HMGET', state_key, 'ids', 'newest', 'private') or {}
  local registry = try('HGETALL', prefix .. 'registry:' .. ident) or {}
  local held = try('GET', session_key)
  local known = state[1] or #registry > 0
  if known then
    -- a stranger gets these with its first report, once the limits have let it in
    try('SET', session_key, instance, 'EX', ARGV[3])
    if state[1] then try('HSET', state_key, 'holder', instance) end
  end
  answers[#answers + 1] =
    {known and 1 or 0, held and 1 or 0, state[1] or '', state[2] or '', state[3] or '', registry}
end
return answers
