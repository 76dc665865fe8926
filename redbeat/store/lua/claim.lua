-- Leases the entries that are due, and peeks at the first one that is due later.
--
-- KEYS[1]  the schedule: sorted set of entry keys by due time
-- ARGV[1]  now
-- ARGV[2]  the lease: a score later than now that marks this claim. It is given to entries whose own
--          score is positive and has a fraction below one half
-- ARGV[3]  how many entries to claim at most
-- ARGV[4]  the horizon: how far to look for the first later entry
-- ARGV[5]  how many bytes the claimed entries may have in all, though a single one may have more; 0
--          to leave sizes alone
-- ARGV[6]  1 to begin with the entries that became due last, else 0
-- ARGV[7]  the lease for all other entries
-- Returns  {claimed, later, set_aside, is_bounded, more}: two flat lists of member, score, where a
--          claimed member has the score that it had before; 1 if an entry is set aside, else 0; 1 if
--          what was claimed is known to be within the bound, else 0; 1 if others are due, else 0
--
-- Atomic, because two beats that read the same due entries would both dispatch them. A lease is
-- unique to its claim, so a claim whose reply was lost is simply made again: entries that already
-- have the lease are returned once more. Their scores from before are lost: what is returned is due
-- by now, and has a fraction on the same side of one half.
--
-- The hashes are not declared as keys, because they are not known before. They are only read, if
-- the server allows it.

local schedule, now, lease, limit, horizon = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local most, from_end, other = tonumber(ARGV[5]), ARGV[6] == '1', ARGV[7]

local bytes, is_bounded = 0, most > 0

local function size_of(member)
  local size = 0
  for _, field in ipairs({'definition', 'meta', 'zones'}) do
    local reply = redis.pcall('HSTRLEN', member, field)
    if type(reply) == 'number' then
      size = size + reply
    else
      -- If one key is refused, others may still be read.
      local refusal = tostring(reply.err)
      if not string.find(refusal, 'WRONGTYPE', 1, true)
        and not string.find(refusal, 'permissions to access', 1, true) then
        is_bounded = false
        return 0
      end
    end
  end
  return size
end

local later = redis.call(
  'ZRANGEBYSCORE', schedule, '(' .. now, horizon, 'WITHSCORES', 'LIMIT', 0, 1)
local set_aside = #redis.call('ZRANGEBYSCORE', schedule, -2, -2, 'LIMIT', 0, 1)

local claimed = {}
for each, fraction in pairs({[lease] = '.25', [other] = '.75'}) do
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', schedule, each, each)) do
    claimed[#claimed + 1] = member
    claimed[#claimed + 1] = string.format('%d', math.floor(tonumber(now)) - 1) .. fraction
    bytes = bytes + (is_bounded and size_of(member) or 0)
  end
end

-- The due members to claim, each followed by its score, the first to claim first.
local function due_pairs(count)
  if not from_end then
    return redis.call('ZRANGEBYSCORE', schedule, 0, now, 'WITHSCORES', 'LIMIT', 0, count)
  end
  local beyond = redis.call('ZRANGEBYSCORE', schedule, '(' .. now, '+inf', 'LIMIT', 0, 1)[1]
  local last = beyond and redis.call('ZRANK', schedule, beyond) - 1 or -1
  local first = last - count + 1
  if count == 0 or (beyond and last < 0) then
    return {}
  end
  if beyond then
    first = math.max(first, 0)
  end
  local found, reversed = redis.call('ZRANGE', schedule, first, last, 'WITHSCORES'), {}
  for i = #found - 1, 1, -2 do
    if tonumber(found[i + 1]) < 0 then
      break
    end
    reversed[#reversed + 1] = found[i]
    reversed[#reversed + 1] = found[i + 1]
  end
  return reversed
end

local due = due_pairs(limit - #claimed / 2)
for i = 1, #due, 2 do
  bytes = bytes + (is_bounded and size_of(due[i]) or 0)
  if is_bounded and bytes > most and #claimed > 0 then
    break
  end
  local score = tonumber(due[i + 1])
  redis.call('ZADD', schedule, score > 0 and score % 1 < 0.5 and lease or other, due[i])
  claimed[#claimed + 1] = due[i]
  claimed[#claimed + 1] = due[i + 1]
end
local more = #redis.call('ZRANGEBYSCORE', schedule, 0, now, 'LIMIT', 0, 1)
return {claimed, later, set_aside, is_bounded and 1 or 0, more}
