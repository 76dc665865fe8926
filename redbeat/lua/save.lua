-- Stores an entry, unless a run was recorded since its score was computed.
--
-- KEYS[1]  the entry's hash      KEYS[2]  the schedule (left out where it lives in another slot)
-- ARGV[1]  definition            ARGV[2]  the stored meta that the score was computed from, or ''
-- ARGV[3]  meta of a new entry   ARGV[4]  score
-- ARGV[5]  the channel on which changes are told
-- Returns  nil if stored; else the meta that is stored by now, for another try
--
-- Atomic, because a score that was computed from the run before last would repeat the last run.
-- That a change cannot be told must not undo it: beat polls as well.

local stored = redis.call('HGET', KEYS[1], 'meta') or ''
if stored ~= ARGV[2] then
  return stored
end
redis.call('HSET', KEYS[1], 'definition', ARGV[1])
if stored == '' then
  redis.call('HSET', KEYS[1], 'meta', ARGV[3])
end
redis.call('HDEL', KEYS[1], 'set_aside')
if KEYS[2] then
  redis.call('ZADD', KEYS[2], ARGV[4], KEYS[1])
end
redis.pcall('PUBLISH', ARGV[5], ARGV[4])
return nil
