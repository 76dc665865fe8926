-- Records runs in the hashes of their entries.
--
-- KEYS     the hashes of the entries
-- ARGV     three for each key: its new meta ('' to leave it), the stored meta that it was computed
--          from ('' if there was none), the reason why the entry is set aside ('' if it is not)
-- Returns  how many hashes took a new meta
--
-- Atomic for each key, because a hash that was deleted since must not come back, and a run that was
-- recorded or rescheduled since must stay: a beat that was frozen for an hour overwrites nothing. A
-- key that does not hold a hash any more is skipped, so that the others are recorded. Doing it twice
-- is harmless. It begins with runs.lua.

local taken = 0
for i, entry in ipairs(KEYS) do
  local meta, seen, reason = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
  local stored = redis.pcall('HMGET', entry, 'definition', 'meta', 'set_aside')
  if not stored.err and stored[1] then
    if takes_run(meta, seen, stored[2] or '') then
      redis.call('HSET', entry, 'meta', meta)
      taken = taken + 1
    end
    if reason ~= '' then
      redis.call('HSET', entry, 'set_aside', reason)
    elseif stored[3] and stored[3] ~= '' then
      local reply = remove_field(entry, 'set_aside')
      if type(reply) == 'table' then
        return reply
      end
    end
  end
end
return taken
