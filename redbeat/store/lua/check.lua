-- Finds out whether a script may read and write the hash of an entry; changes nothing.
--
-- KEYS     the hashes of entries
-- Returns  1, or the error that the first of them is refused with
--
-- Of a field that is there HSETNX leaves the value, and what Redis refuses it refuses before.

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
