-- Stores entries, each unless a run was recorded since its score was computed, or it was edited
-- since it was read. Publishes the change.
--
-- KEYS     the hashes of the entries, then the schedule (left out where it lives in another slot)
-- ARGV[1]  the channel on which changes are published      ARGV[2]  how many entries
-- ARGV     then eight for each entry: its definition, the stored meta that its score was computed
--          from ('' if there was none), its meta if it is new, its score, 1 if the meta replaces the
--          stored one, 1 if the stored definition must be the one that follows, that definition
--          ('' if there was none), its zones ('' for none)
-- Returns  {conflicts, refusal}: for each entry '' if it was stored; the meta that is stored by now,
--          for another try; or false if another definition is stored by now. And why the change
--          could not be published, '' if it was
--
-- Atomic, because a score that was computed from the run before last would repeat the last run, and
-- a definition that was based on the one before last would undo the last edit. An entry whose
-- definition is stored already is accepted: the reply to the first try may have been lost. A change
-- that cannot be published must still be made: beat polls as well. A user who may not run HDEL
-- empties a field instead.

-- A stand-in for Redis may run a newer Lua, where it has another name.
local unpack = unpack or table.unpack

local channel, count = ARGV[1], tonumber(ARGV[2])
local schedule = KEYS[count + 1]

local function is_edited(key, definition, seen)
  local stored = redis.call('HGET', key, 'definition') or ''
  return stored ~= seen and stored ~= definition
end

-- Before anything is written: an error later on would leave a part of the change.
for i = 1, count do
  redis.call('HGET', KEYS[i], 'definition')
end

local conflicts, first = {}, nil
for i = 1, count do
  local definition, seen_meta, new_meta, score, replaces, compares, seen, zones =
    unpack(ARGV, 8 * i - 5, 8 * i + 2)
  local stored = redis.call('HGET', KEYS[i], 'meta') or ''
  if compares == '1' and is_edited(KEYS[i], definition, seen) then
    conflicts[i] = false
  elseif stored ~= seen_meta then
    conflicts[i] = stored
  else
    conflicts[i] = ''
    if stored == '' or replaces == '1' then
      redis.call('HSET', KEYS[i], 'definition', definition, 'meta', new_meta)
    else
      redis.call('HSET', KEYS[i], 'definition', definition)
    end
    local cleared = redis.pcall('HDEL', KEYS[i], 'set_aside')
    if type(cleared) == 'table' and redis.call('HGET', KEYS[i], 'set_aside') then
      redis.call('HSET', KEYS[i], 'set_aside', '')
    end
    if zones ~= '' or redis.call('HGET', KEYS[i], 'zones') then
      redis.call('HSET', KEYS[i], 'zones', zones)
    end
    if schedule then
      redis.call('ZADD', schedule, score, KEYS[i])
    end
    if tonumber(score) >= 0 and (not first or tonumber(score) < tonumber(first)) then
      first = score
    end
  end
end
local published = first and redis.pcall('PUBLISH', channel, first)
return {conflicts, type(published) == 'table' and published.err or ''}
