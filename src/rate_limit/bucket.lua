-- One bucket of the generic cell rate algorithm, as src/rate_limit/gcra.rs has it: a minute's whole
-- quota may be taken at once, more than the quota only from a full bucket, and is paid for afterwards.
--
-- What is in use is kept as the time that it needs to come back: whole microseconds, and what is over
-- in parts of a microsecond, of which there are as many as the quota has units. So nothing is ever
-- rounded while a quota stays as it is. Lua's numbers are doubles, exact up to 2^53: the caller
-- reckons amounts into times, and here times are only added and compared.
--
-- The time of the last change is kept beside it, and not the time at which the bucket is full: a server
-- whose clock is set back, or that is replaced by one whose clock is late, then makes nobody wait
-- longer than what is in use.
--
-- KEYS[1]  the bucket.
-- ARGV[1]  the quota, units a minute, at most 2^52.
-- ARGV[2]  take, charge or give_back.
-- ARGV[3]  the amount as the time in which it comes back: whole microseconds, at most 2^51,
-- ARGV[4]  and parts of one.
-- ARGV[5]  now, microseconds since 1970; left out: the server's own clock.
--
-- Returns whether it passed (1 or 0), the microseconds after which a take that did not would, and the
-- time in use, in microseconds and parts.

local MINUTE = 60000000
local LONGEST = 2 ^ 52
-- A bucket is kept longer than it is in use, in milliseconds, for callers who pass in a time that goes
-- slower than the server's.
local LINGER = 60000

local quota, action = tonumber(ARGV[1]), ARGV[2]
local cost, cost_parts = tonumber(ARGV[3]), tonumber(ARGV[4])
local now = tonumber(ARGV[5])
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local used, parts = 0, 0
local kept = redis.call('GET', KEYS[1]) or ''
local at, at_used, at_parts, at_quota = string.match(kept, '^(%d+) (%d+) (%d+) (%d+)$')
if at then
    used, parts = tonumber(at_used), tonumber(at_parts)
    -- Parts of another quota are of another size: up, so that no limit is exceeded.
    if parts > 0 and tonumber(at_quota) ~= quota then
        used, parts = used + 1, 0
    end
    used = used - math.max(0, now - tonumber(at))
    if used < 0 then
        used, parts = 0, 0
    end
end

local sum, sum_parts = used + cost, parts + cost_parts
if sum_parts >= quota then
    sum, sum_parts = sum + 1, sum_parts - quota
end

local passed, wait = 1, 0
if action == 'give_back' then
    used, parts = used - cost, parts - cost_parts
    if parts < 0 then
        used, parts = used - 1, parts + quota
    end
    if used < 0 then
        used, parts = 0, 0
    end
else
    local is_full = used == 0 and parts == 0
    local fits = sum < MINUTE or (sum == MINUTE and sum_parts == 0)
    if action == 'charge' or is_full or fits then
        used, parts = math.min(sum, LONGEST), sum_parts
    else
        local until_room = sum - MINUTE + (sum_parts > 0 and 1 or 0)
        local until_full = used + (parts > 0 and 1 or 0)
        passed, wait = 0, math.min(until_room, until_full)
    end
end

-- Also where nothing passed: the time that went by is settled, and a clock set back is taken over.
if used == 0 and parts == 0 then
    redis.call('DEL', KEYS[1])
else
    local bucket = string.format('%.0f %.0f %.0f %.0f', now, used, parts, quota)
    redis.call('SET', KEYS[1], bucket, 'PX', string.format('%.0f', math.floor(used / 1000) + 1 + LINGER))
end
return { passed, wait, used, parts }
