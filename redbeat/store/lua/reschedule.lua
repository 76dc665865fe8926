-- Stores an entry's meta and its next due time, whatever was stored, and publishes the change.
--
-- KEYS[1]  the entry's hash      KEYS[2]  the schedule (left out where it lives in another slot)
-- ARGV[1]  meta                  ARGV[2]  score
-- ARGV[3]  the channel on which changes are published
-- Returns  {1, refusal}: why the change could not be published, '' if it was
--
-- Atomic, so that score and meta always belong to the same run. A change that cannot be published
-- must still be made: beat polls as well.

redis.call('HSET', KEYS[1], 'meta', ARGV[1])
if KEYS[2] then
  redis.call('ZADD', KEYS[2], ARGV[2], KEYS[1])
end
local published = redis.pcall('PUBLISH', ARGV[3], ARGV[2])
return {1, type(published) == 'table' and published.err or ''}
