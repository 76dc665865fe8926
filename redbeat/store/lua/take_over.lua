-- Takes over a lock from a holder that gives no sign of life.
--
-- KEYS[1]  the lock      ARGV[1]  the silent holder's token      ARGV[2]  the new token
-- ARGV[3]  time to live in milliseconds
-- ARGV[4]  the time to live, in milliseconds, below which the holder is considered silent
-- Returns  1, or 0 if the lock is held under another token or was renewed
--
-- Atomic, because the holder may renew, or another standby take over, at this very moment. Doing it
-- twice is harmless: the second time the lock is held under the new token.

local token, remaining = redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])
if token == ARGV[2] then
  return 1
end
if token ~= ARGV[1] or remaining < 0 or remaining >= tonumber(ARGV[4]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
