#!lua name=kvmigrate1
-- What a store does by itself while it is migrated: fence, clock, marks, and the write, in one atomic step each.
-- docs/reference/wire.md says what keys, arguments and replies mean; other languages call the same functions.
--
-- Redis 7 loads this file as a library. For older servers each function becomes a script: the functions that it
-- needs, and `return name(KEYS, ARGV)`. So nothing here may depend on state between calls, and nothing but
-- functions and constants may stand at the top level. Every top-level `end` stands in the first column.
--
-- The number in the names is the version of this file. A released file never changes: its successor has the next
-- number, and both may be loaded in one server while programs of both versions run.

-- Meaning of keys and fields. A fence with another number is not understood, so nothing is done.
local PROTO = '1'
-- Between a hash's key and its field in an address: U+241F.
local SEPARATOR = '\226\144\159'
-- Lua cannot unpack more than about 8000 values.
local CHUNK = 1000
-- The last millisecond that a double tells from its neighbours; PEXPIREAT would refuse much later ones.
local LATEST_MS = 9007199254740991
-- From here on a double may be a neighbour of the integer that is meant.
local EXACT = 9007199254740991

-- Why a write is refused: found is e, a, log, proto of the fence.
local function refusal(found)
  if not found[1] then
    return redis.error_reply('KVMNOFENCE')
  end
  if found[4] ~= PROTO then
    return redis.error_reply('KVMPROTO ' .. tostring(found[4]) .. ' ' .. PROTO)
  end
  return redis.error_reply('KVMSTALE ' .. found[1] .. ' ' .. found[2])
end

-- Microseconds since 1970 by the clock of the store; exact in a double until the year 2255.
local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function whole(number)
  return string.format('%.0f', number)
end

-- The next n of a clock, as text, and the time; nothing where there is no clock.
local function tick(clock)
  local last = redis.call('HGET', clock, 'v')
  if not last then
    return nil
  end
  local now = now_us()
  local n = now
  if n <= tonumber(last) then
    n = last + 1
  end
  n = whole(n)
  redis.call('HSET', clock, 'v', n)
  return n, now
end

-- When a key expires, in milliseconds since 1970; 0 for never. Servers before Redis 7 tell the time left only: it is
-- asked for until their clock did not go on meanwhile.
local function expiry(key)
  if redis.REDIS_VERSION_NUM then
    return math.max(redis.call('PEXPIRETIME', key), 0)
  end
  local before = math.floor(now_us() / 1000)
  while true do
    local left = redis.call('PTTL', key)
    if left < 0 then
      return 0
    end
    local after = math.floor(now_us() / 1000)
    if after == before then
      return before + left
    end
    before = after
  end
end

-- The type of what stands under a key, and its value; false where that type is not read.
local function stands(key)
  local kind = redis.call('TYPE', key)['ok']
  if kind == 'string' then
    return kind, redis.call('GET', key)
  elseif kind == 'hash' then
    return kind, redis.call('HGETALL', key)
  elseif kind == 'list' then
    return kind, redis.call('LRANGE', key, 0, -1)
  elseif kind == 'set' then
    return kind, redis.call('SMEMBERS', key)
  elseif kind == 'ReJSON-RL' then
    return kind, redis.call('JSON.GET', key)
  end
  return kind, false
end

-- What stands at an address: type, value, expiry. field is '' for all of the key, or '=' and the name of a field.
local function standing(key, field)
  if field == '' then
    local kind, value = stands(key)
    return {kind, value, kind ~= 'none' and expiry(key) or 0}
  end
  if redis.call('TYPE', key)['ok'] ~= 'hash' then
    return {'none', false, 0}
  end
  local value = redis.call('HGET', key, string.sub(field, 2))
  return {value and 'field' or 'none', value, value and expiry(key) or 0}
end

-- A change is: what to do, expiry mode, its milliseconds, how many parts, the parts. at is its first place in args.
-- The member of the marks that it concerns.
local function member(key, args, at)
  local what = args[at]
  if what == 'FIELD' or what == 'NOFIELD' then
    return key .. SEPARATOR .. args[at + 4]
  end
  return key
end

-- Commands that write a key whole from many parts.
local function write_parts(command, key, args, first, last)
  redis.call('DEL', key)
  for start = first, last, CHUNK do
    redis.call(command, key, unpack(args, start, math.min(start + CHUNK - 1, last)))
  end
end

-- Make a change; return the expiry that the key has then, 0 for none. now is only needed for mode 'in'.
local function change(key, args, at, now)
  local what, mode, first = args[at], args[at + 1], at + 4
  local expires = 0
  if mode == 'in' then
    expires = math.floor(now / 1000) + tonumber(args[at + 2])
  elseif mode == 'at' then
    expires = tonumber(args[at + 2])
  elseif mode == 'keep' then
    expires = expiry(key)
  end
  if not (expires <= LATEST_MS) then
    -- Before anything is written: what a script did before it fails stays.
    error('kvmigrate takes no expiry so late')
  end
  if what == 'SET' then
    redis.call('SET', key, args[first])
  elseif what == 'DEL' then
    redis.call('DEL', key)
    return 0
  elseif what == 'FIELD' then
    redis.call('HSET', key, args[first], args[first + 1])
    return expires
  elseif what == 'NOFIELD' then
    redis.call('HDEL', key, args[first])
    return expires
  elseif what == 'HASH' then
    write_parts('HSET', key, args, first, first + args[at + 3] - 1)
  elseif what == 'LIST' then
    write_parts('RPUSH', key, args, first, first + args[at + 3] - 1)
  elseif what == 'MEMBERS' then
    write_parts('SADD', key, args, first, first + args[at + 3] - 1)
  elseif what == 'JSON' then
    redis.call('JSON.SET', key, '$', args[first])
    redis.call('PERSIST', key)
  elseif what == 'EXPIRE' then
    redis.call('PERSIST', key)
  else
    error('kvmigrate knows no change ' .. tostring(what))
  end
  if expires > 0 then
    redis.call('PEXPIREAT', key, whole(expires))
  end
  return expires
end

-- Whether what stands under a key is what the condition at this place of args says.
local function holds(key, args, at)
  local condition = args[at]
  if condition == 'absent' then
    return redis.call('EXISTS', key) == 0
  elseif condition == 'present' then
    return redis.call('EXISTS', key) == 1
  elseif condition == 'nofield' then
    return redis.call('HEXISTS', key, args[at + 1]) == 0
  end
  local kind = redis.call('TYPE', key)['ok']
  if condition == 'field' then
    return kind == 'hash' and redis.call('HGET', key, args[at + 1]) == args[at + 2]
  elseif condition == 'value' then
    if kind ~= 'string' and kind ~= 'ReJSON-RL' then
      return false
    end
    return redis.call(kind == 'string' and 'GET' or 'JSON.GET', key) == args[at + 1]
  elseif condition == 'hash' then
    if kind ~= 'hash' or redis.call('HLEN', key) * 2 ~= #args - at then
      return false
    end
    for place = at + 1, #args, 2 do
      if redis.call('HGET', key, args[place]) ~= args[place + 1] then
        return false
      end
    end
    return true
  end
  error('kvmigrate knows no condition ' .. tostring(condition))
end

-- KEYS fence clock marks key; ARGV epoch, a change, then maybe a condition. Returns n, log, expiry; nil: not met.
-- The mark comes first: a write that the server refuses then leaves a mark too many, and never one too few.
local function put(keys, args)
  local found = redis.call('HMGET', keys[1], 'e', 'a', 'log', 'proto')
  if found[1] ~= args[1] or found[2] ~= 'K' or found[4] ~= PROTO then
    return refusal(found)
  end
  local key = keys[4]
  local condition = args[5] + 6
  if args[condition] and not holds(key, args, condition) then
    return false
  end
  if found[3] == '0' then
    return {0, 0, change(key, args, 2, args[3] == 'in' and now_us() or 0)}
  end
  if args[2] == 'DEL' or args[2] == 'NOFIELD' then
    -- A server without memory refuses scripts whose first write may take some: ZREM never does.
    redis.call('ZREM', keys[3], member(key, args, 2))
  end
  local n, now = tick(keys[2])
  if not n then
    return redis.error_reply('KVMNOFENCE')
  end
  redis.call('ZADD', keys[3], n, member(key, args, 2))
  return {tonumber(n), tonumber(found[3]), change(key, args, 2, now)}
end

-- Whether what stands under a key lets the change at this place of args be made.
local function fits(key, args, at)
  local what, kind = args[at], redis.call('TYPE', key)['ok']
  if what == 'FIELD' or what == 'NOFIELD' then
    return kind == 'hash' or kind == 'none'
  end
  return what ~= 'JSON' or kind == 'ReJSON-RL' or kind == 'none'
end

-- KEYS fence clock marks key...; ARGV epoch, then a change for each key. Returns n, log, then the expiry of each.
local function put_many(keys, args)
  local found = redis.call('HMGET', keys[1], 'e', 'a', 'log', 'proto')
  if found[1] ~= args[1] or found[2] ~= 'K' or found[4] ~= PROTO then
    return refusal(found)
  end
  local at = 2
  for place = 4, #keys do
    -- What a script did before it fails stays, so that all of them are looked at before the first is made.
    if not fits(keys[place], args, at) then
      return redis.error_reply('WRONGTYPE nothing was written: another type of value stands under ' .. keys[place])
    end
    at = at + 4 + args[at + 3]
  end
  local n, now = '0', now_us()
  if found[3] ~= '0' then
    n = tick(keys[2])
    if not n then
      return redis.error_reply('KVMNOFENCE')
    end
  end
  local reply = {tonumber(n), tonumber(found[3])}
  at = 2
  for place = 4, #keys do
    if n ~= '0' then
      redis.call('ZADD', keys[3], n, member(keys[place], args, at))
    end
    reply[#reply + 1] = change(keys[place], args, at, now)
    at = at + 4 + args[at + 3]
  end
  return reply
end

-- What a counter holds now, as text; nothing for other commands. at is the place of the command in args.
local function exact(args, at)
  local command = string.upper(args[at])
  if command == 'HINCRBY' then
    return redis.call('HGET', args[at + 1], args[at + 2])
  elseif command == 'INCR' or command == 'INCRBY' or command == 'DECR' or command == 'DECRBY' then
    return redis.call('GET', args[at + 1])
  end
  return nil
end

-- Marks the members at these places of args with n.
local function mark(marks, n, args, first, last)
  if first == last then
    redis.call('ZADD', marks, n, args[first])
    return
  end
  for start = first, last, CHUNK do
    local pairs = {}
    for place = start, math.min(start + CHUNK - 1, last) do
      pairs[#pairs + 1] = n
      pairs[#pairs + 1] = args[place]
    end
    redis.call('ZADD', marks, unpack(pairs))
  end
end

-- KEYS fence clock marks key...; ARGV epoch, RESP version of the reply, how many members, the members, the command.
-- Marks the members and runs one command. Returns n, log, its reply; an error of the command is returned as it is.
local function write(keys, args)
  local found = redis.call('HMGET', keys[1], 'e', 'a', 'log', 'proto')
  if found[1] ~= args[1] or found[2] ~= 'K' or found[4] ~= PROTO then
    return refusal(found)
  end
  local n, last = '0', 3 + args[3]
  if string.upper(args[last + 1]) == 'INCRBYFLOAT' and not redis.REDIS_VERSION_NUM then
    return redis.error_reply('ERR INCRBYFLOAT in a script can crash servers before Redis 7')
  end
  if found[3] ~= '0' then
    n = tick(keys[2])
    if not n then
      return redis.error_reply('KVMNOFENCE')
    end
    mark(keys[3], n, args, 4, last)
  end
  redis.setresp(tonumber(args[2]))
  local reply = redis.pcall(unpack(args, last + 1))
  if type(reply) == 'table' and reply['err'] then
    return reply
  end
  if type(reply) == 'number' and math.abs(reply) >= EXACT then
    reply = exact(args, last + 1) or reply
  end
  return {tonumber(n), tonumber(found[3]), reply}
end

-- As write, for a command that takes no memory. The first write of a script decides whether a server without memory
-- runs it: this one never takes any, and finds nothing.
local function write_freeing(keys, args)
  redis.call('ZREM', keys[3], '')
  return write(keys, args)
end

-- KEYS fence clock marks key...; ARGV epoch, how many members, the members, then for each command the RESP version of
-- its reply, how many words, the words. Marks the members and runs the commands, with one n for all. Returns n, log,
-- then for each command a list of its reply, which may be an error; an empty one for nothing.
local function write_many(keys, args)
  local found = redis.call('HMGET', keys[1], 'e', 'a', 'log', 'proto')
  if found[1] ~= args[1] or found[2] ~= 'K' or found[4] ~= PROTO then
    return refusal(found)
  end
  local n, at, resp = '0', 3 + args[2], '2'
  if found[3] ~= '0' then
    n = tick(keys[2])
    if not n then
      return redis.error_reply('KVMNOFENCE')
    end
    mark(keys[3], n, args, 3, at - 1)
  end
  local reply = {tonumber(n), tonumber(found[3])}
  while args[at] do
    local first, last = at + 2, at + 1 + args[at + 1]
    if args[at] ~= resp then
      resp = args[at]
      redis.setresp(tonumber(resp))
    end
    local answer
    if string.upper(args[first]) == 'INCRBYFLOAT' and not redis.REDIS_VERSION_NUM then
      answer = redis.error_reply('ERR INCRBYFLOAT in a script can crash servers before Redis 7')
    else
      answer = redis.pcall(unpack(args, first, last))
    end
    if type(answer) == 'number' and math.abs(answer) >= EXACT then
      answer = exact(args, first) or answer
    end
    reply[#reply + 1] = {answer}
    at = last + 1
  end
  redis.setresp(2)
  return reply
end

-- KEYS fence clock; returns e, a, log, inc, full, v, we; nil where there is no fence. A fence without a clock is none.
local function fence(keys, args)
  local found = redis.call('HMGET', keys[1], 'e', 'a', 'log', 'proto', 'inc', 'full')
  local clock = redis.call('HMGET', keys[2], 'v', 'we')
  if not found[1] or not clock[1] or not clock[2] then
    return false
  end
  if found[4] ~= PROTO then
    return refusal(found)
  end
  return {found[1], found[2], found[3], found[5] or '', found[6] or '0', clock[1], clock[2]}
end

-- KEYS fence clock marks key...; ARGV for each key '' or '=field'. Returns what fence returns, then for each key
-- type, value, expiry, n of its mark (0: none).
local function observe(keys, args)
  local reply = fence(keys)
  if not reply then
    return redis.error_reply('KVMNOFENCE')
  end
  if reply['err'] then
    return reply
  end
  for place = 4, #keys do
    local field = args[place - 3]
    local found = standing(keys[place], field)
    local address = field == '' and keys[place] or keys[place] .. SEPARATOR .. string.sub(field, 2)
    found[4] = tonumber(redis.call('ZSCORE', keys[3], address) or 0)
    reply[#reply + 1] = found
  end
  return reply
end

-- The same, as of n at least: ARGV n, then as observe. A clock that is behind n is moved on to it, so that what was
-- seen of several shards has one version. No write is between its clock's last one and n, so all of it holds as of n.
local function observe_at(keys, args)
  local last = redis.call('HGET', keys[2], 'v')
  if last and redis.call('HEXISTS', keys[1], 'e') == 1 and tonumber(last) < tonumber(args[1]) then
    redis.call('HSET', keys[2], 'v', args[1])
  end
  table.remove(args, 1)
  return observe(keys, args)
end

-- KEYS key...; ARGV for each key '' or '=field'. Returns for each key type, value, expiry.
local function read(keys, args)
  local reply = {}
  for place = 1, #keys do
    reply[place] = standing(keys[place], args[place])
  end
  return reply
end

-- KEYS fence clock key; ARGV a change. Makes it where there is no fence, and marks nothing. Returns whether it did.
local function pass_unfenced(keys, args)
  if fence(keys) then
    return 0
  end
  change(keys[3], args, 1, now_us())
  return 1
end

-- KEYS marks; ARGV member, n, member, n...: takes away the marks that still have that n. Returns how many.
local function ack(keys, args)
  local gone = 0
  for place = 1, #args, 2 do
    local n = redis.call('ZSCORE', keys[1], args[place])
    if n and tonumber(n) == tonumber(args[place + 1]) then
      gone = gone + redis.call('ZREM', keys[1], args[place])
    end
  end
  return gone
end

-- KEYS fence clock marks; ARGV epoch, member...: marks them with a fresh n. Returns n.
local function touch(keys, args)
  local found = redis.call('HMGET', keys[1], 'e', 'a', 'log', 'proto')
  if found[1] ~= args[1] or found[2] ~= 'K' or found[4] ~= PROTO then
    return refusal(found)
  end
  local n = tick(keys[2])
  if not n then
    return redis.error_reply('KVMNOFENCE')
  end
  mark(keys[3], n, args, 2, #args)
  return tonumber(n)
end

-- KEYS fence guard key; ARGV epoch, n, a change. Writes what the tables hold, unless the key was given n or more
-- already. Returns whether it wrote.
local function reverse(keys, args)
  local found = redis.call('HMGET', keys[1], 'e', 'a', 'log', 'proto')
  if found[1] ~= args[1] or found[2] ~= 'T' or found[4] ~= PROTO then
    return refusal(found)
  end
  local address = member(keys[3], args, 3)
  local given = redis.call('HGET', keys[2], address)
  if given and tonumber(given) >= tonumber(args[2]) then
    return 0
  end
  if args[3] == 'SET' and redis.call('TYPE', keys[3])['ok'] == 'ReJSON-RL' then
    args[3] = 'JSON'
  end
  change(keys[3], args, 3, 0)
  redis.call('HSET', keys[2], address, args[2])
  return 1
end

-- KEYS fence clock marks guard; ARGV e, a, log, inc ('': as it is), full ('1', '': as it is), epoch of the clock ('':
-- as it is), clear marks ('1'), clear guard ('1'), then the fences that it may follow: ',epoch,epoch,' ',a,a,'.
-- Returns whether the fence is there now.
local function swap(keys, args)
  local found = redis.call('HMGET', keys[1], 'e', 'a', 'log', 'proto')
  if not found[1] or redis.call('HEXISTS', keys[2], 'v') == 0 then
    return 0
  end
  if found[4] ~= PROTO then
    return refusal(found)
  end
  local epoch, authority = ',' .. found[1] .. ',', ',' .. found[2] .. ','
  if not (string.find(args[9], epoch, 1, true) and string.find(args[10], authority, 1, true)) then
    return found[1] == args[1] and found[2] == args[2] and found[3] == args[3] and 1 or 0
  end
  if tonumber(args[1]) < tonumber(found[1]) then
    return redis.error_reply('KVMEPOCH an epoch never falls: ' .. found[1] .. ' to ' .. args[1])
  end
  if found[2] == 'K' and found[3] == '0' and args[3] ~= '0' and found[1] == args[1] then
    return redis.error_reply('KVMEPOCH unlogged writes were at epoch ' .. found[1] .. ': logging begins a new one')
  end
  if args[4] == '' then
    redis.call('HSET', keys[1], 'e', args[1], 'a', args[2], 'log', args[3])
  else
    redis.call('HSET', keys[1], 'e', args[1], 'a', args[2], 'log', args[3], 'inc', args[4])
  end
  if args[5] == '1' then
    redis.call('HSET', keys[1], 'full', '1')
  end
  if args[6] ~= '' then
    redis.call('HSET', keys[2], 'we', args[6])
  end
  if args[7] == '1' then
    redis.call('UNLINK', keys[3])
  end
  if args[8] == '1' then
    redis.call('UNLINK', keys[4])
  end
  return 1
end

-- KEYS fence clock; ARGV e, a, log, inc, full: where there is no fence. Returns whether it was made. What is left of
-- a clock goes on.
local function create(keys, args)
  local last = redis.call('HGET', keys[2], 'v')
  if redis.call('HEXISTS', keys[1], 'e') == 1 and last and redis.call('HEXISTS', keys[2], 'we') == 1 then
    return 0
  end
  local n = math.max(now_us(), tonumber(last or 0))
  redis.call('UNLINK', keys[1])
  redis.call('HSET', keys[1], 'e', args[1], 'a', args[2], 'log', args[3], 'inc', args[4], 'full', args[5])
  redis.call('HSET', keys[1], 'proto', PROTO)
  redis.call('HSET', keys[2], 'v', whole(n), 'we', args[1])
  return 1
end

-- KEYS fence; ARGV field, value, ...: notes them, where there is a fence. Returns whether there is.
local function note(keys, args)
  if redis.call('HEXISTS', keys[1], 'e') == 0 then
    return 0
  end
  redis.call('HSET', keys[1], unpack(args))
  return 1
end

-- KEYS fence marks; ARGV how many there may be. Where there are more: drops all, and notes that everything is owed.
local function drop_marks(keys, args)
  if redis.call('ZCARD', keys[2]) <= tonumber(args[1]) then
    return 0
  end
  if redis.call('HEXISTS', keys[1], 'e') == 0 then
    return redis.error_reply('KVMNOFENCE')
  end
  redis.call('HSET', keys[1], 'full', '1')
  redis.call('UNLINK', keys[2])
  return 1
end

redis.register_function('kvm1_put', put)
redis.register_function{function_name='kvm1_delete', callback=put, flags={'allow-oom'}}
redis.register_function('kvm1_put_many', put_many)
redis.register_function('kvm1_write', write)
redis.register_function{function_name='kvm1_write_freeing', callback=write_freeing, flags={'allow-oom'}}
redis.register_function('kvm1_write_many', write_many)
redis.register_function{function_name='kvm1_fence', callback=fence, flags={'no-writes', 'allow-oom'}}
redis.register_function{function_name='kvm1_observe', callback=observe, flags={'no-writes', 'allow-oom'}}
redis.register_function{function_name='kvm1_observe_at', callback=observe_at, flags={'allow-oom'}}
redis.register_function{function_name='kvm1_read', callback=read, flags={'no-writes', 'allow-oom'}}
redis.register_function('kvm1_pass_unfenced', pass_unfenced)
redis.register_function{function_name='kvm1_ack', callback=ack, flags={'allow-oom'}}
redis.register_function{function_name='kvm1_touch', callback=touch, flags={'allow-oom'}}
redis.register_function('kvm1_reverse', reverse)
redis.register_function{function_name='kvm1_swap', callback=swap, flags={'allow-oom'}}
redis.register_function{function_name='kvm1_create', callback=create, flags={'allow-oom'}}
redis.register_function{function_name='kvm1_note', callback=note, flags={'allow-oom'}}
redis.register_function{function_name='kvm1_drop_marks', callback=drop_marks, flags={'allow-oom'}}
