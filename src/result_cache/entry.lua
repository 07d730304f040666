-- An answer that replicas share, or the lease of the replica that works on it.
-- KEYS[1]: its name. The value is 'E' and the sealed answer, or 'L' and the token of the holder.
-- ARGV[1]: 'claim' TOKEN MILLISECONDS: gives {'E', answer}; {'L', ''} where another one holds the lease; else takes
-- or extends the lease and gives {'M', ''}.
-- 'renew' TOKEN MILLISECONDS, 'release' TOKEN: change only a lease of that token. 'store' ANSWER MILLISECONDS.
local verb = ARGV[1]
if verb == 'store' then
    redis.call('SET', KEYS[1], 'E' .. ARGV[2], 'PX', ARGV[3])
    return { 'E', '' }
end
local value = redis.call('GET', KEYS[1]) or ''
local is_mine = value == 'L' .. ARGV[2]
if verb == 'renew' then
    if is_mine then
        redis.call('PEXPIRE', KEYS[1], ARGV[3])
    end
elseif verb == 'release' then
    if is_mine then
        redis.call('DEL', KEYS[1])
    end
elseif string.sub(value, 1, 1) == 'E' then
    return { 'E', string.sub(value, 2) }
elseif value ~= '' and not is_mine then
    return { 'L', '' }
else
    redis.call('SET', KEYS[1], 'L' .. ARGV[2], 'PX', ARGV[3])
    return { 'M', '' }
end
return { is_mine and 'M' or 'L', '' }
