-- Removes entries for good.
--
-- KEYS     the hashes of the entries, then the schedule (left out where it lives in another slot)
-- ARGV[1]  the channel on which changes are told      ARGV[2]  how many entries
-- Returns  {removed, refusal}: how many of the entries there were; and why the change could not be
--          told, '' if it was
--
-- Atomic, so that no beat finds a member without its hash. That a change cannot be told must not
-- undo it: beat polls as well.

local channel, count = ARGV[1], tonumber(ARGV[2])
local schedule = KEYS[count + 1]

local removed = 0
for i = 1, count do
  local was_member = schedule and redis.call('ZREM', schedule, KEYS[i]) or 0
  local was_stored = redis.call('DEL', KEYS[i])
  removed = removed + math.max(was_member, was_stored)
end
local told = redis.pcall('PUBLISH', channel, '')
return {removed, type(told) == 'table' and told.err or ''}
