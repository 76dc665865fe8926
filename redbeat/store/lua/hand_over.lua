-- Hands runs over: takes each entry off its lease and pushes its messages, or does neither.
--
-- KEYS[1]       the schedule
-- KEYS[2], ...  the hashes of the entries, then the keys of the broker
-- ARGV[1]       how many entries there are
-- ARGV[2, 3]    the database of the schedule, and that of the broker
-- ARGV[4], ...  for each entry: its lease, its next score, its new meta ('' to leave it), the stored
--               meta that it was computed from, the reason why it is set aside ('' if it is not), 1
--               if its hash changes and else 0, how many commands send its messages; then for each
--               command its name, the number of its key among KEYS (0 if it has none), how many
--               arguments follow, and those
-- Returns       for each entry: 1 if it was handed over; 2 if that was done before, so that this is
--               a repetition; 0 if it no longer has the lease or was deleted; or {step, error} if a
--               'write' to the schedule or a 'message' was refused. Only with 1 is anything done
--
-- Atomic for each entry, because the run leaves the schedule and reaches the broker at once. The
-- lease tells whose run it is, and that this server has the schedule: elsewhere nobody has it.
--
-- What can fail is found out first. The lists are asked what they hold, and whether this user may
-- take back what was pushed, if that may have to be; the first write reveals a server that takes
-- none. What is refused all the same is undone. A message that was published cannot be, so those go
-- last. A queue whose time to live cannot be set has its message all the same. It begins with
-- runs.lua.

local schedule, count, home, away = KEYS[1], tonumber(ARGV[1]), ARGV[2], ARGV[3]
local MESSAGE, WRITE = 'message', 'write'

local function is_error(reply)
  return type(reply) == 'table' and reply.err ~= nil
end

local function use(database)
  if home ~= away then
    local reply = redis.pcall('SELECT', database)
    if is_error(reply) then
      return {err = 'NOSELECT ' .. reply.err}
    end
  end
end

local position = 3
local function read(size)
  position = position + size
  return unpack(ARGV, position - size + 1, position)
end

local refusal = use(away)
if refusal then
  return refusal
end

-- Why a message cannot be pushed to a key of the broker, if it holds something else than a list.
local of_key = {}
local function refusal_of(key)
  if of_key[key] == nil then
    local reply = redis.pcall('LLEN', key)
    of_key[key] = is_error(reply) and string.find(reply.err, 'WRONGTYPE', 1, true) and reply or false
  end
  return of_key[key]
end

-- Why this user could not take back what is pushed to a key.
local function refusal_to_take_back(key)
  local reply = redis.pcall('LPOP', key, 0)
  return is_error(reply) and reply
end

local entries, results = {}, {}
for i = 1, count do
  local lease, score, meta, seen, reason, changes, commands = read(7)
  local entry = {
    hash = KEYS[i + 1], lease = lease, score = score, meta = meta, seen = seen, reason = reason,
    changes = changes == '1', pushes = {}, expiries = {}, publications = {}
  }
  for _ = 1, tonumber(commands) do
    local name, key, size = read(3)
    local command = {name, read(tonumber(size))}
    if key ~= '0' then
      table.insert(command, 2, KEYS[tonumber(key)])
    end
    if name == 'LPUSH' then
      local refused = refusal_of(command[2])
      if refused then
        results[i] = {MESSAGE, refused}
      end
      table.insert(entry.pushes, command)
    else
      table.insert(name == 'PUBLISH' and entry.publications or entry.expiries, command)
    end
  end
  if not results[i] and #entry.pushes > 0 and #entry.pushes + #entry.publications > 1 then
    local refused = refusal_to_take_back(entry.pushes[1][2])
    if refused then
      results[i] = {WRITE, refused}
    end
  end
  entries[i] = entry
end

local function move(entry, score)
  if score == '' then
    return redis.pcall('ZREM', schedule, entry.hash)
  end
  return redis.pcall('ZADD', schedule, score, entry.hash)
end

-- Puts the entry back under its lease; `undo` is what its fields were.
local function take_back(entry)
  move(entry, entry.lease)
  for field, before in pairs(entry.undo) do
    if before then
      redis.pcall('HSET', entry.hash, field, before)
    else
      remove_field(entry.hash, field)
    end
  end
end

local function write_field(entry, field, value, before)
  local reply
  if value then
    reply = redis.pcall('HSET', entry.hash, field, value)
  else
    reply = remove_field(entry.hash, field)
  end
  if not is_error(reply) then
    entry.undo[field] = before
  end
  return reply
end

local function write(entry)
  local score = redis.pcall('ZSCORE', schedule, entry.hash)
  if is_error(score) then
    return {WRITE, score}
  end
  local stored = redis.pcall('HMGET', entry.hash, 'definition', 'meta', 'set_aside')
  if is_error(stored) then
    return string.find(stored.err, 'WRONGTYPE', 1, true) and 0 or {WRITE, stored}
  end
  local definition, meta, set_aside = stored[1], stored[2] or '', stored[3] or ''
  if not score or tonumber(score) ~= tonumber(entry.lease) then
    return meta ~= '' and meta == entry.meta and meta ~= entry.seen and 2 or 0
  end
  if not definition then
    return 0
  end
  local reply = move(entry, entry.score)
  if is_error(reply) then
    return {WRITE, reply}
  end
  entry.undo = {}
  if takes_run(entry.meta, entry.seen, meta) then
    reply = write_field(entry, 'meta', entry.meta, stored[2])
  end
  if not is_error(reply) and entry.reason ~= '' then
    reply = write_field(entry, 'set_aside', entry.reason, stored[3])
  elseif not is_error(reply) and entry.changes and set_aside ~= '' then
    reply = write_field(entry, 'set_aside', nil, stored[3])
  end
  if is_error(reply) then
    take_back(entry)
    return {WRITE, reply}
  end
  return 1
end

refusal = use(home)
if refusal then
  return refusal
end
for i, entry in ipairs(entries) do
  results[i] = results[i] or write(entry)
end

local function send(entry)
  for i, push in ipairs(entry.pushes) do
    local reply = redis.pcall(unpack(push))
    if is_error(reply) then
      return reply, i - 1
    end
  end
  for _, expiry in ipairs(entry.expiries) do
    redis.pcall(unpack(expiry))
  end
  for i, publication in ipairs(entry.publications) do
    local reply = redis.pcall(unpack(publication))
    if is_error(reply) and i == 1 then
      return reply, #entry.pushes
    end
  end
end

use(away)
local refused = {}
for i, entry in ipairs(entries) do
  if results[i] == 1 then
    local reply, pushed = send(entry)
    if reply then
      for k = pushed, 1, -1 do
        for _ = 3, #entry.pushes[k] do
          redis.pcall('LPOP', entry.pushes[k][2])
        end
      end
      results[i] = {MESSAGE, reply}
      table.insert(refused, entry)
    end
  end
end

if #refused > 0 then
  use(home)
  for _, entry in ipairs(refused) do
    take_back(entry)
  end
  use(away)
end
return results
