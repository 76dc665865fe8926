-- Checks whether a script may read and write the hashes of entries; changes nothing.
--
-- KEYS     the hashes of entries
-- Returns  1, or the error with which Redis refuses the first of them that it refuses
--
-- HSETNX leaves a field that exists as it is, and Redis refuses a key before it looks at fields.

for _, entry in ipairs(KEYS) do
  local reply = redis.pcall('HGET', entry, 'definition')
  if type(reply) == 'string' then
    reply = redis.pcall('HSETNX', entry, 'definition', '')
  end
  if type(reply) == 'table' and reply.err then
    return reply
  end
end
return 1
