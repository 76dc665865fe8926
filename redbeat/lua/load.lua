-- Reads the hashes of entries, all fields in one string.
--
-- KEYS     the hashes of the entries
-- Returns  {lengths, joined}: how many bytes definition, meta and set_aside of each key have, -1 for
--          one that is not there, with spaces between the numbers; and the fields one after another
--
-- A script not to be atomic, but because a reply for each field costs its reader ten times as much.
-- A key that holds something else than a hash reads as one that is not there.

local lengths, fields = {}, {}
for _, entry in ipairs(KEYS) do
  local stored = redis.pcall('HMGET', entry, 'definition', 'meta', 'set_aside')
  if stored.err and not string.find(tostring(stored.err), 'WRONGTYPE', 1, true) then
    return stored
  end
  for i = 1, 3 do
    local field = stored[i]
    lengths[#lengths + 1] = field and #field or -1
    fields[#fields + 1] = field or ''
  end
end
return {table.concat(lengths, ' '), table.concat(fields)}
