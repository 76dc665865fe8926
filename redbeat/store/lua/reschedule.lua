-- Stores what is known of an entry's runs and its next due time, whatever was stored, and tells beat.
--
-- KEYS[1]  the entry's hash      KEYS[2]  the schedule (left out where it lives in another slot)
-- ARGV[1]  meta                  ARGV[2]  score
-- ARGV[3]  the channel on which changes are told
-- Returns  {1, refusal}: why the change could not be told, '' if it was
--
-- Atomic, so that a score never belongs to another run than the meta. That a change cannot be told
-- must not undo it: beat polls as well.

redis.call('HSET', KEYS[1], 'meta', ARGV[1])
if KEYS[2] then
  redis.call('ZADD', KEYS[2], ARGV[2], KEYS[1])
end
local told = redis.pcall('PUBLISH', ARGV[3], ARGV[2])
return {1, type(told) == 'table' and told.err or ''}
