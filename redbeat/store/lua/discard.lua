-- Removes entries, each unless it was saved, or ran, since it was read.
--
-- KEYS     the hashes of the entries, then the schedule (left out where it lives in another slot)
-- ARGV[1]  the channel on which changes are published      ARGV[2]  how many entries
-- ARGV     then four for each entry, as they were read, '' for a missing one: its definition, its
--          meta, the reason why it is set aside, its zones
-- Returns  {removed, refusal}: for each entry 1 if it is no longer in the schedule, 0 if it stays;
--          and why the change could not be published, '' if it was
--
-- Atomic, because an entry that is saved between the reading and the removal must stay. A key
-- without a definition holds nothing of ours: it only loses its place in the schedule. So doing it
-- twice is harmless. A change that cannot be published must still be made: beat polls as well.

-- A stand-in for Redis may run a newer Lua, where it has another name.
local unpack = unpack or table.unpack

local channel, count = ARGV[1], tonumber(ARGV[2])
local schedule = KEYS[count + 1]

local function read(key)
  local stored = redis.pcall('HMGET', key, 'definition', 'meta', 'set_aside', 'zones')
  if stored.err and string.find(tostring(stored.err), 'WRONGTYPE', 1, true) then
    return {}
  end
  return stored
end

local removed = {}
for i = 1, count do
  local definition, meta, set_aside, zones = unpack(ARGV, 4 * i - 1, 4 * i + 2)
  local stored = read(KEYS[i])
  if stored.err then
    return stored
  end
  local is_same = stored[1] == definition and (stored[2] or '') == meta
    and (stored[3] or '') == set_aside and (stored[4] or '') == zones
  removed[i] = (is_same or not stored[1]) and 1 or 0
  if is_same then
    redis.call('DEL', KEYS[i])
  end
  if removed[i] == 1 and schedule then
    redis.call('ZREM', schedule, KEYS[i])
  end
end
local published = redis.pcall('PUBLISH', channel, '')
return {removed, type(published) == 'table' and published.err or ''}
