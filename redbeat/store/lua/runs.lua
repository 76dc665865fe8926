-- Functions of the scripts that write runs into the hashes of entries. Those scripts begin with it.

-- Whether a run is to be recorded: a hash that took another run since it was read keeps that one. An
-- entry without meta that was saved meanwhile got one without a run, which may be replaced.
local function takes_run(meta, seen, stored)
  local is_new = seen == '' and not string.find(stored, '"total_run_count"', 1, true)
  return meta ~= '' and (stored == seen or is_new)
end

-- Removes a field. A user who may not run HDEL empties it instead.
local function remove_field(entry, field)
  local reply = redis.pcall('HDEL', entry, field)
  if type(reply) == 'table' then
    reply = redis.pcall('HSET', entry, field, '')
  end
  return reply
end

