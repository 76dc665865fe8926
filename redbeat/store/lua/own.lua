-- Notes in the hashes of entries which application has these in its beat_schedule.
--
-- KEYS     the hashes of the entries
-- ARGV[1]  the name of the application
-- Returns  1
--
-- Atomic for each key, because a hash that was deleted since must not come back with an owner and
-- without a definition. A key that does not hold a hash is skipped. Doing it twice is harmless.

for _, entry in ipairs(KEYS) do
  local definition = redis.pcall('HGET', entry, 'definition')
  if type(definition) == 'string' then
    redis.call('HSET', entry, 'owner', ARGV[1])
  end
end
return 1
