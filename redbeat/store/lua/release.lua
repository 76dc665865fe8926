-- Releases a lock, if its holder asks.
--
-- KEYS[1]  the lock      ARGV[1]  the holder's token
-- Returns  1, or 0 if the lock is not held under this token
--
-- Atomic, because another holder may come between reading the token and deleting the key.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('DEL', KEYS[1])
