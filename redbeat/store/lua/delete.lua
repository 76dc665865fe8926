-- Removes entries for good.
--
-- KEYS     the hashes of the entries, then the schedule (left out where it lives in another slot)
-- ARGV[1]  the channel on which changes are published      ARGV[2]  how many entries
-- Returns  {removed, refusal}: how many of the entries existed; and why the change could not be
--          published, '' if it was
--
-- Atomic, so that no beat finds a member without its hash. A change that cannot be published must
-- still be made: beat polls as well.

local channel, count = ARGV[1], tonumber(ARGV[2])
local schedule = KEYS[count + 1]

local removed = 0
for i = 1, count do
  local was_member = schedule and redis.call('ZREM', schedule, KEYS[i]) or 0
  local was_stored = redis.call('DEL', KEYS[i])
  removed = removed + math.max(was_member, was_stored)
end
local published = redis.pcall('PUBLISH', channel, '')
return {removed, type(published) == 'table' and published.err or ''}
