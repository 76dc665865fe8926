-- Gives claimed entries their next score.
--
-- KEYS[1]  the schedule
-- ARGV[1]  the lease under which the entries were claimed
-- ARGV[2], ARGV[3], ...  in pairs: member, its new score ('' drops the member)
-- Returns  how many of the members still had the lease
--
-- Atomic, because an entry that was deleted, saved or claimed by another beat since must be left as
-- it is. Doing it twice is harmless: the second time no member has the lease.

local schedule, lease = KEYS[1], tonumber(ARGV[1])

local held = 0
for i = 2, #ARGV, 2 do
  local member, score = ARGV[i], ARGV[i + 1]
  local stored = redis.call('ZSCORE', schedule, member)
  if stored and tonumber(stored) == lease then
    held = held + 1
    if score == '' then
      redis.call('ZREM', schedule, member)
    else
      redis.call('ZADD', schedule, score, member)
    end
  end
end
return held
