-- Leases the entries that are due, and peeks at the first one that is due later.
--
-- KEYS[1]  the schedule: sorted set of entry keys by due time
-- ARGV[1]  now            ARGV[2]  the lease: the score that marks this claim, later than now
-- ARGV[3]  how many entries to claim at the most
-- ARGV[4]  the horizon: how far to look for the first later entry
-- Returns  {claimed, later, set_aside}: two flat lists of member, score, where a claimed member
--          comes with the score it had before; and 1 if an entry is set aside, else 0
--
-- Atomic, because two beats that read the same due entries would both dispatch them. A lease is
-- unique to its claim, so a claim whose reply was lost is simply asked for again: what already
-- bears the lease is returned once more (its score before is lost: it was due by now).

local schedule, now, lease, limit, horizon = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

local later = redis.call(
  'ZRANGEBYSCORE', schedule, '(' .. now, horizon, 'WITHSCORES', 'LIMIT', 0, 1)
local set_aside = #redis.call('ZRANGEBYSCORE', schedule, -2, -2, 'LIMIT', 0, 1)

local claimed = {}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', schedule, lease, lease)) do
  claimed[#claimed + 1] = member
  claimed[#claimed + 1] = now
end
local due = redis.call(
  'ZRANGEBYSCORE', schedule, 0, now, 'WITHSCORES', 'LIMIT', 0, limit - #claimed / 2)
for i = 1, #due, 2 do
  redis.call('ZADD', schedule, lease, due[i])
  claimed[#claimed + 1] = due[i]
  claimed[#claimed + 1] = due[i + 1]
end
return {claimed, later, set_aside}
