-- A small value that is changed only by whoever knows what it is.
-- KEYS[1]: its name. Without arguments: gives the value, '' for none, and Redis's time in seconds and
-- microseconds. ARGV: old value, new value, milliseconds to keep it. Gives 1 where it was replaced.
local value = redis.call('GET', KEYS[1]) or ''
if #ARGV == 0 then
    local time = redis.call('TIME')
    return { value, tonumber(time[1]), tonumber(time[2]) }
end
if value ~= ARGV[1] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
