-- Records runs in the hashes of their entries.
--
-- KEYS     the hashes of the entries
-- ARGV     for each key three: its new meta ('' leaves it), the total run count in it, the reason
--          why the entry is set aside ('' if it is not)
-- Returns  how many hashes took what was given
--
-- Atomic for each key, because a hash that was deleted since must not come back, and a run count
-- must never fall: a beat that was frozen for an hour does not overwrite what was recorded since.
-- Doing it twice is harmless.

local taken = 0
for i, entry in ipairs(KEYS) do
  local meta, runs, reason = ARGV[3 * i - 2], tonumber(ARGV[3 * i - 1]), ARGV[3 * i]
  local stored = redis.call('HMGET', entry, 'definition', 'meta', 'set_aside')
  if stored[1] then
    local stored_runs = string.match(stored[2] or '', '"total_run_count"%s*:%s*(%d+)')
    if meta ~= '' and runs > (tonumber(stored_runs) or -1) then
      redis.call('HSET', entry, 'meta', meta)
      taken = taken + 1
    end
    if reason ~= '' then
      redis.call('HSET', entry, 'set_aside', reason)
    elseif stored[3] then
      redis.call('HDEL', entry, 'set_aside')
    end
  end
end
return taken
