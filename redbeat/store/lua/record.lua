-- Records runs in the hashes of their entries.
--
-- KEYS     the hashes of the entries
-- ARGV     for each key three: its new meta ('' leaves it), the stored meta that it was computed from
--          ('': there was none), the reason why the entry is set aside ('' if it is not)
-- Returns  how many hashes took what was given
--
-- Atomic for each key, because a hash that was deleted since must not come back, and what was
-- recorded or rescheduled since must stand: a beat that was frozen for an hour overwrites nothing.
-- An entry without meta that was saved meanwhile got one that tells of no run. A key that holds no
-- hash any more is no entry, and must not keep the others from being recorded. A user who may not run
-- HDEL empties a field instead. Doing it twice is harmless.

local taken = 0
for i, entry in ipairs(KEYS) do
  local meta, seen, reason = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
  local stored = redis.pcall('HMGET', entry, 'definition', 'meta', 'set_aside')
  if not stored.err and stored[1] then
    local known = stored[2] or ''
    local is_new = seen == '' and not string.find(known, '"total_run_count"', 1, true)
    if meta ~= '' and (known == seen or is_new) then
      redis.call('HSET', entry, 'meta', meta)
      taken = taken + 1
    end
    if reason ~= '' then
      redis.call('HSET', entry, 'set_aside', reason)
    elseif stored[3] and stored[3] ~= '' then
      if type(redis.pcall('HDEL', entry, 'set_aside')) == 'table' then
        redis.call('HSET', entry, 'set_aside', '')
      end
    end
  end
end
return taken
