-- Removes an entry for good, and tells beat.
--
-- KEYS[1]  the entry's hash      KEYS[2]  the schedule (left out where it lives in another slot)
-- ARGV[1]  the channel on which changes are told
-- Returns  1
--
-- Atomic, so that no beat finds a member without its hash. That a change cannot be told must not
-- undo it: beat polls as well.

if KEYS[2] then
  redis.call('ZREM', KEYS[2], KEYS[1])
end
redis.call('DEL', KEYS[1])
redis.pcall('PUBLISH', ARGV[1], '')
return 1
