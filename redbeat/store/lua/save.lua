-- Stores entries, each unless a run was recorded since its score was computed, or it was edited
-- since it was read.
--
-- KEYS     the hashes of the entries, then the schedule (left out where it lives in another slot)
-- ARGV[1]  the channel on which changes are told      ARGV[2]  how many entries
-- ARGV     then for each entry eight: its definition, the stored meta that its score was computed
--          from ('': there was none), its meta if it is new, its score, 1 if the meta replaces what
--          is stored, 1 if the stored definition must be the one that follows, that definition
--          ('': there was none), its zones ('' for none)
-- Returns  {conflicts, refusal}: for each entry '' if it was stored; else the meta that is stored by
--          now, for another try; false if another definition is stored by now. And why the change
--          could not be told, '' if it was
--
-- Atomic, because a score that was computed from the run before last would repeat the last run, and
-- a definition that was made of the one before last would undo the last edit. One that is stored
-- already is no other one: whose answer was lost is not refused. That a change cannot be told must
-- not undo it: beat polls as well. A user who may not run HDEL empties a field instead.

-- A stand-in for Redis may run a newer Lua, which has it elsewhere.
local unpack = unpack or table.unpack

local channel, count = ARGV[1], tonumber(ARGV[2])
local schedule = KEYS[count + 1]

local function is_edited(key, definition, seen)
  local stored = redis.call('HGET', key, 'definition') or ''
  return stored ~= seen and stored ~= definition
end

-- Before anything is written: an error in the midst would leave a part of it.
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
local told = first and redis.pcall('PUBLISH', channel, first)
return {conflicts, type(told) == 'table' and told.err or ''}
