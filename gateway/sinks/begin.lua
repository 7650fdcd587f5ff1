-- Takes the sessions of idents and reads what is kept of each.
--
-- ARGV  1 prefix  2 instance  3 session ttl s; 0: read, and leave them to whoever holds them  then the idents
-- Returns for each ident {known 1/0, held 1/0, the ids of its older reports and the records of the newest ones (see
-- store.lua), private state, registry fields and values, whether commands wait for it 1/0, whether nobody else has held
-- it since this instance did 1/0}.

local prefix, instance = ARGV[1], ARGV[2]
local HOLDER, HEAD = 16, 17
local mark = string.sub(redis.sha1hex(instance), 1, HOLDER)
local answers = {}

local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then return nil end
  return answer
end

for i = 4, #ARGV do
  local ident = ARGV[i]
  local recent_key, session_key = prefix .. 'recent:' .. ident, prefix .. 'session:' .. ident
  local recent = try('GET', recent_key) or ''
  local state = try('HMGET', prefix .. 'state:' .. ident, 'older', 'private') or {}
  local registry = try('HGETALL', prefix .. 'registry:' .. ident) or {}
  local held = try('GET', session_key)
  local known = recent ~= '' or #registry > 0
  local mine = #recent <= HEAD or string.sub(recent, 1, HOLDER) == mark
  if known and ARGV[3] ~= '0' then
    -- a stranger gets these with its first report, once the limits have let it in
    try('SET', session_key, instance, 'EX', ARGV[3])
    if not mine then try('SETRANGE', recent_key, 0, mark) end
  end
  local waiting = try('EXISTS', prefix .. 'pending:' .. ident) or 0
  answers[#answers + 1] =
    {known and 1 or 0, held and 1 or 0, state[1] or '', string.sub(recent, HEAD + 1), state[2] or '', registry, waiting,
      mine and 1 or 0}
end
return answers
