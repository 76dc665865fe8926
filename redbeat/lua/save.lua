-- Stores entries, each unless a run was recorded since its score was computed.
--
-- KEYS     the hashes of the entries, then the schedule (left out where it lives in another slot)
-- ARGV[1]  the channel on which changes are told      ARGV[2]  how many entries
-- ARGV     then for each entry five: its definition, the stored meta that its score was computed
--          from ('': there was none), its meta if it is new, its score, 1 if the meta replaces what
--          is stored
-- Returns  for each entry '' if it was stored; else the meta that is stored by now, for another try
--
-- Atomic, because a score that was computed from the run before last would repeat the last run.
-- That a change cannot be told must not undo it: beat polls as well.

local channel, count = ARGV[1], tonumber(ARGV[2])
local schedule = KEYS[count + 1]

local conflicts, first = {}, nil
for i = 1, count do
  local definition, seen_meta, new_meta, score, replaces = unpack(ARGV, 5 * i - 2, 5 * i + 2)
  local stored = redis.call('HGET', KEYS[i], 'meta') or ''
  if stored ~= seen_meta then
    conflicts[i] = stored
  else
    conflicts[i] = ''
    if stored == '' or replaces == '1' then
      redis.call('HSET', KEYS[i], 'definition', definition, 'meta', new_meta)
    else
      redis.call('HSET', KEYS[i], 'definition', definition)
    end
    redis.call('HDEL', KEYS[i], 'set_aside')
    if schedule then
      redis.call('ZADD', schedule, score, KEYS[i])
    end
    if tonumber(score) >= 0 and (not first or tonumber(score) < tonumber(first)) then
      first = score
    end
  end
end
if first then
  redis.pcall('PUBLISH', channel, first)
end
return conflicts
