-- One bucket of the generic cell rate algorithm, as in src/rate_limit/gcra.rs. The quota of a whole minute may be taken
-- at once. An amount above the quota passes only if the bucket is full, and later minutes make up for it.
--
-- The amount in use is stored as the time until it is available again: whole microseconds, and a remainder in parts of
-- a microsecond. A microsecond has as many parts as the quota has units, so nothing is rounded while the quota stays
-- the same. Lua numbers are doubles, exact up to 2^53. The caller therefore converts amounts to times, and the script
-- only adds and compares times.
--
-- The bucket stores the time of the last change and not the time at which it is full. If the server's clock is set
-- back, or the server is replaced by one whose clock is behind, no client waits longer than the time in use.
--
-- KEYS[1]  the bucket.
-- ARGV[1]  the quota in units per minute, at most 2^52.
-- ARGV[2]  take, charge or give_back.
-- ARGV[3]  the whole microseconds until the amount is available again, at most 2^51.
-- ARGV[4]  the remaining parts of a microsecond.
-- ARGV[5]  the current time in microseconds since 1970; if absent, the clock of the server.
--
-- Returns whether the call passed (1 or 0), the microseconds after which a rejected take would pass, and the time in
-- use in microseconds and parts.

local MINUTE = 60000000
local LONGEST = 2 ^ 52
-- Additional time in milliseconds for which a bucket is kept, for callers whose clock runs slower than the server's.
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
    -- The size of a part depends on the quota. Round up, so that no limit is exceeded.
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

-- This also applies to rejected calls: the elapsed time is settled, and a clock that was set back is adopted.
if used == 0 and parts == 0 then
    redis.call('DEL', KEYS[1])
else
    local bucket = string.format('%.0f %.0f %.0f %.0f', now, used, parts, quota)
    redis.call('SET', KEYS[1], bucket, 'PX', string.format('%.0f', math.floor(used / 1000) + 1 + LINGER))
end
return { passed, wait, used, parts }
