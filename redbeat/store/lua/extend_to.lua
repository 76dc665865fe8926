-- Renews a lock to a full time to live, however much of it is left.
--
-- KEYS[1]  the lock      ARGV[1]  the holder's token      ARGV[2]  time to live in milliseconds
-- ARGV[3]  another argument that redis-py's lock passes: ignored
-- ARGV[4]  the token to hold it under from now on; the same if it is missing
-- Returns  1, or 0 if the lock is not held under this token
--
-- Atomic, because another holder may come between reading the token and setting the expiry. Doing it
-- twice is harmless: the second time the lock is held under the new token.

local token = redis.call('GET', KEYS[1])
local renamed = ARGV[4] or ARGV[1]
if not token or (token ~= ARGV[1] and token ~= renamed) then
  return 0
end
if renamed ~= token then
  redis.call('SET', KEYS[1], renamed, 'PX', ARGV[2])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 1
