"""What is known of the commands of Redis: which write, where their keys stand, and what becomes of each. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from kvmigrate.dualwrite.served_commands import AT_ONE_KEY

Arguments = Sequence[Any]
"""A command as a client sends it: its name, which is one word, then its arguments."""


class Kind(enum.Enum):
    """What a command does with the keys that it names."""

    FREE = "names no key of the data"
    READ = "reads"
    WRITE = "writes"
    UNKNOWN = "not known"


class Form(enum.Enum):
    """How a write of mapped keys is made one step with its fence and its marks."""

    SCRIPT = "one step"
    """The command runs inside the function that checks the fence and marks: one round trip."""

    TRANSACTION = "transaction"
    """WATCH of the fence, then MULTI with the command and the marks: two round trips."""

    REFUSED = "refused"
    """Never, for a mapped key."""


class Where(NamedTuple):
    """Where keys stand among the arguments; the name is number 0.

    Attributes:
        first: The first key, or, where *counted*, how many there are.

        last: The last one, counted from the end where it is negative.

        step: From one to the next.
    """

    first: int
    last: int
    step: int = 1
    counted: bool = False

    def places(self, args: Arguments) -> range:
        """Return the numbers of the arguments that are keys; none where the server will refuse the command anyway."""
        if not self.counted:
            last = self.last if self.last >= 0 else len(args) + self.last
            return range(self.first, min(last + 1, len(args)), self.step)
        count = whole(args[self.first]) if len(args) > self.first else 0
        return range(self.first + 1, min(self.first + 1 + count * self.step, len(args)), self.step)


class Command(NamedTuple):
    """One command.

    Attributes:
        keys: Where its keys stand.

        changed: Where those stand that it changes.

        native: Its reply may have a shape that only RESP 3 has, which a script must speak, too. Otherwise there may be
            nulls in its reply, which only RESP 2 passes out of scripts, or it is the same in both.

        served: It works on a mapped key while the tables are the authority, too.

        why: The reason of a refusal.

        frees: It takes no memory: a server without any runs it.

        is_single: Its only key is its first argument, which it changes if it changes any.
    """

    name: str
    kind: Kind
    keys: tuple[Where, ...] = ()
    changed: tuple[Where, ...] = ()
    form: Form = Form.SCRIPT
    native: bool = True
    served: bool = False
    why: str = ""
    frees: bool = False
    is_single: bool = False

    def key_places(self, args: Arguments) -> Iterator[int]:
        """Yield the numbers of the arguments that are keys."""
        for where in self.keys:
            yield from where.places(args)
        yield from stored_by(self.name, args)

    def changed_places(self, args: Arguments) -> Iterator[int]:
        """Yield the numbers of the arguments that are keys which it changes."""
        for where in self.changed:
            yield from where.places(args)
        yield from stored_by(self.name, args)


def whole(argument: Any) -> int:
    """Return an argument as a number; 0 where it is none."""
    try:
        return max(int(argument), 0)
    except (TypeError, ValueError):
        return 0


def word(argument: Any) -> str:
    """Return an argument as a word of the language of commands."""
    if isinstance(argument, str):
        return argument.upper()
    return bytes(argument).decode("latin-1").upper() if isinstance(argument, bytes | bytearray | memoryview) else ""


def streams(args: Arguments) -> Iterator[int]:
    """Yield the numbers of the keys behind STREAMS: the first half of what stands there."""
    for number in range(1, len(args)):
        if word(args[number]) == "STREAMS":
            yield from range(number + 1, number + 1 + (len(args) - number - 1) // 2)
            return


_STORING = {"SORT": ("STORE",), "GEORADIUS": ("STORE", "STOREDIST"), "GEORADIUSBYMEMBER": ("STORE", "STOREDIST")}


def stored_by(name: str, args: Arguments) -> Iterator[int]:
    """Yield the numbers of the keys that an option of the command names for what it changes."""
    if name == "XREADGROUP":
        yield from streams(args)
        return
    if name == "MIGRATE":
        listed = [number for number in range(6, len(args)) if word(args[number]) == "KEYS"]
        yield from range(listed[0] + 1 if listed else len(args), len(args))
        return
    options = _STORING.get(name)
    if options is None:
        return
    for number in range(2, len(args) - 1):
        if word(args[number]) in options:
            yield number + 1


_FIELD_PAIRS = frozenset("HSET HMSET".split())
_ONE_FIELD = frozenset("HSETNX HINCRBY HINCRBYFLOAT".split())
_LISTED_FIELDS = {
    "HGETDEL": 1,
    "HGETEX": 1,
    "HSETEX": 2,
    "HEXPIRE": 1,
    "HPEXPIRE": 1,
    "HEXPIREAT": 1,
    "HPEXPIREAT": 1,
    "HPERSIST": 1,
}


def fields_changed(name: str, args: Arguments) -> Sequence[Any] | None:
    """Return the fields of the hash that a command changes; ``None`` where it changes the hash whole."""
    if name in _FIELD_PAIRS:
        return args[2::2]
    if name in _ONE_FIELD:
        return args[2:3]
    if name == "HDEL":
        return args[2:]
    step = _LISTED_FIELDS.get(name)
    if step is None:
        return None
    for number in range(2, len(args) - 1):
        if word(args[number]) == "FIELDS":
            return args[number + 2 : number + 2 + whole(args[number + 1]) * step : step]
    return None


def waited(name: str, args: Arguments) -> float | None:
    """Return how many seconds a command would wait in the server, 0 for ever; ``None`` where it does not wait."""
    if name in {"BLMPOP", "BZMPOP"}:
        return _seconds(args[1])
    if name in _BLOCKING:
        return _seconds(args[-1])
    if name == "XREADGROUP":
        for number in range(1, len(args) - 1):
            if word(args[number]) == "BLOCK":
                return whole(args[number + 1]) / 1000
    return None


def _seconds(argument: Any) -> float | None:
    try:
        return max(float(argument), 0.0)
    except (TypeError, ValueError):
        return None


_ONE, _TWO, _ALL = Where(1, 1), Where(1, 2), Where(1, -1)
_SECOND = Where(2, 2)

_WRITES_ONE = """
    APPEND DECR DECRBY DELEX EXPIRE EXPIREAT GETDEL GETEX GETSET INCR INCRBY INCRBYFLOAT MOVE PERSIST PEXPIRE PEXPIREAT
    PSETEX RESTORE SET SETBIT SETEX SETNX SETRANGE
    HDEL HINCRBY HINCRBYFLOAT HMSET HSET HSETEX HSETNX
    LINSERT LPOP LPUSH LPUSHX LREM LSET LTRIM RPOP RPUSH RPUSHX
    SADD SPOP SREM
    ZADD ZINCRBY ZPOPMAX ZPOPMIN ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE
    GEOADD PFADD
    XACK XACKDEL XADD XCFGSET XDEL XDELEX XSETID XTRIM
    JSON.DEL JSON.FORGET JSON.MERGE JSON.SET JSON.CLEAR
    VADD VREM VSETATTR
""".split()
"""Writes of the key behind their name."""

_WRITES_ONE_NULLS = "HEXPIRE HEXPIREAT HGETDEL HGETEX HPERSIST HPEXPIRE HPEXPIREAT".split()
"""As `_WRITES_ONE`; there may be nulls in what they answer."""

_WRITES_ONE_NATIVE = """
    BITFIELD JSON.ARRAPPEND JSON.ARRINSERT JSON.ARRPOP JSON.ARRTRIM JSON.NUMINCRBY JSON.NUMMULTBY JSON.STRAPPEND
    JSON.TOGGLE XAUTOCLAIM XCLAIM
""".split()
"""As `_WRITES_ONE`; they answer in ways that no script can: shapes, or integers that no double holds."""

_WRITES_MORE: dict[str, tuple[tuple[Where, ...], tuple[Where, ...]]] = {
    "BITOP": ((Where(2, -1),), (_SECOND,)),
    "COPY": ((_TWO,), (_SECOND,)),
    "DEL": ((_ALL,), (_ALL,)),
    "GEOSEARCHSTORE": ((_TWO,), (_ONE,)),
    "GEORADIUS": ((_ONE,), ()),
    "GEORADIUSBYMEMBER": ((_ONE,), ()),
    "JSON.MSET": ((Where(1, -1, 3),), (Where(1, -1, 3),)),
    "LMOVE": ((_TWO,), (_TWO,)),
    "LMPOP": ((Where(1, 0, counted=True),), (Where(1, 0, counted=True),)),
    "MSET": ((Where(1, -1, 2),), (Where(1, -1, 2),)),
    "MSETEX": ((Where(1, 0, 2, counted=True),), (Where(1, 0, 2, counted=True),)),
    "MSETNX": ((Where(1, -1, 2),), (Where(1, -1, 2),)),
    "PFMERGE": ((_ALL,), (_ONE,)),
    "RENAME": ((_TWO,), (_TWO,)),
    "RENAMENX": ((_TWO,), (_TWO,)),
    "RPOPLPUSH": ((_TWO,), (_TWO,)),
    "SDIFFSTORE": ((_ALL,), (_ONE,)),
    "SINTERSTORE": ((_ALL,), (_ONE,)),
    "SMOVE": ((_TWO,), (_TWO,)),
    "SORT": ((_ONE,), ()),
    "SUNIONSTORE": ((_ALL,), (_ONE,)),
    "UNLINK": ((_ALL,), (_ALL,)),
    "XGROUP": ((_SECOND,), (_SECOND,)),
    "ZDIFFSTORE": ((_ONE, Where(2, 0, counted=True)), (_ONE,)),
    "ZINTERSTORE": ((_ONE, Where(2, 0, counted=True)), (_ONE,)),
    "ZMPOP": ((Where(1, 0, counted=True),), (Where(1, 0, counted=True),)),
    "ZRANGESTORE": ((_TWO,), (_ONE,)),
    "ZUNIONSTORE": ((_ONE, Where(2, 0, counted=True)), (_ONE,)),
}
"""Where keys stand, and which of them are changed."""

_SCRIPTS = "EVAL EVALSHA FCALL".split()

_BLOCKING = {
    "BLMOVE": _TWO,
    "BLMPOP": Where(2, 0, counted=True),
    "BLPOP": Where(1, -2),
    "BRPOP": Where(1, -2),
    "BRPOPLPUSH": _TWO,
    "BZMPOP": Where(2, 0, counted=True),
    "BZPOPMAX": Where(1, -2),
    "BZPOPMIN": Where(1, -2),
}

_READS_ONE = """
    BITCOUNT BITFIELD_RO BITPOS DIGEST DUMP EXPIRETIME GET GETBIT GETRANGE PEXPIRETIME PTTL STRLEN SUBSTR TTL TYPE
    HEXISTS HEXPIRETIME HGET HGETALL HKEYS HLEN HMGET HPEXPIRETIME HPTTL HRANDFIELD HSCAN HSTRLEN HTTL HVALS
    LINDEX LLEN LPOS LRANGE
    SCARD SISMEMBER SMEMBERS SMISMEMBER SRANDMEMBER SSCAN
    ZCARD ZCOUNT ZLEXCOUNT ZMSCORE ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREVRANGE ZREVRANGEBYLEX
    ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE
    GEODIST GEOHASH GEOPOS GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH SORT_RO
    XINFO XLEN XPENDING XRANGE XREVRANGE
    JSON.ARRINDEX JSON.ARRLEN JSON.GET JSON.OBJKEYS JSON.OBJLEN JSON.RESP JSON.STRLEN JSON.TYPE
    VCARD VDIM VEMB VGETATTR VINFO VISMEMBER VLINKS VRANDMEMBER VRANGE VSIM
""".split()

_READS_MORE = {
    "EVALSHA_RO": Where(2, 0, counted=True),
    "EVAL_RO": Where(2, 0, counted=True),
    "EXISTS": _ALL,
    "FCALL_RO": Where(2, 0, counted=True),
    "JSON.DEBUG": _SECOND,
    "JSON.MGET": Where(1, -2),
    "LCS": _TWO,
    "MEMORY": _SECOND,
    "MGET": _ALL,
    "OBJECT": _SECOND,
    "PFCOUNT": _ALL,
    "SDIFF": _ALL,
    "SINTER": _ALL,
    "SINTERCARD": Where(1, 0, counted=True),
    "SUNION": _ALL,
    "TOUCH": _ALL,
    "WATCH": _ALL,
    "XINFO": _SECOND,
    "ZDIFF": Where(1, 0, counted=True),
    "ZINTER": Where(1, 0, counted=True),
    "ZINTERCARD": Where(1, 0, counted=True),
    "ZUNION": Where(1, 0, counted=True),
}

_FREE = """
    ACL ASKING AUTH BGREWRITEAOF BGSAVE CLIENT CLUSTER COMMAND CONFIG DBSIZE DEBUG DISCARD ECHO EXEC FAILOVER FUNCTION
    HELLO INFO KEYS LASTSAVE LATENCY LOLWUT MODULE MONITOR MULTI PING PSUBSCRIBE PUBLISH PUBSUB PUNSUBSCRIBE QUIT
    RANDOMKEY READONLY READWRITE REPLICAOF RESET ROLE SAVE SCAN SCRIPT SENTINEL SHUTDOWN SLAVEOF SLOWLOG
    SPUBLISH SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE TIME UNSUBSCRIBE UNWATCH WAIT WAITAOF
""".split()

_FREEING = frozenset(
    """
    DEL DELEX EXPIRE EXPIREAT GETDEL GETEX HDEL HGETDEL HPERSIST JSON.CLEAR JSON.DEL JSON.FORGET LMPOP LPOP LREM LTRIM
    MOVE PERSIST PEXPIRE PEXPIREAT RENAME RENAMENX RPOP SMOVE SPOP SREM UNLINK VREM XACK XACKDEL XDEL XDELEX XTRIM ZMPOP
    ZPOPMAX ZPOPMIN ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE
    """.split()
)
"""Writes that a server without memory runs."""

_SERVED = frozenset("GET SET SETEX PSETEX SETNX GETSET GETDEL DEL UNLINK EXISTS MGET MSET JSON.MGET".split()) | set(
    AT_ONE_KEY
)
"""What works on a mapped key that holds JSON, or is a hash, while the tables are the authority."""

ALWAYS_REFUSED = {
    "FLUSHALL": "it would take the fence, the clock and the marks away with the data; delete keys by name",
    "FLUSHDB": "it would take the fence, the clock and the marks away with the data; delete keys by name",
    "SELECT": "a connection that is in another database writes where no fence is; make a client for that database",
    "SWAPDB": "it would put other data under the fence; copy what you need",
}
"""Commands that are refused whatever they name, with the reason."""

_REFUSED_MORE = {
    "MIGRATE": (Where(3, 3), "it moves the key to another server without a fence; use COPY or DUMP, then DEL"),
}


def _commands() -> Iterator[Command]:
    for name in _WRITES_ONE:
        yield Command(name, Kind.WRITE, (_ONE,), (_ONE,))
    for name in _WRITES_ONE_NULLS:
        yield Command(name, Kind.WRITE, (_ONE,), (_ONE,), native=False)
    for name in _WRITES_ONE_NATIVE:
        yield Command(name, Kind.WRITE, (_ONE,), (_ONE,), Form.TRANSACTION)
    for name, (keys, changed) in _WRITES_MORE.items():
        yield Command(name, Kind.WRITE, keys, changed)
    for name in _SCRIPTS:
        where = (Where(2, 0, counted=True),)
        yield Command(name, Kind.WRITE, where, where, Form.TRANSACTION)
    yield Command("XREADGROUP", Kind.WRITE, (Where(1, 0),), form=Form.TRANSACTION)
    for name, keys_at in _BLOCKING.items():
        yield Command(name, Kind.WRITE, (keys_at,), (keys_at,), Form.TRANSACTION)
    for name, (keys_at, why) in _REFUSED_MORE.items():
        yield Command(name, Kind.WRITE, (keys_at,), (keys_at,), Form.REFUSED, why=why)
    for name, why in ALWAYS_REFUSED.items():
        yield Command(name, Kind.WRITE, form=Form.REFUSED, why=why)
    for name in _READS_ONE:
        yield Command(name, Kind.READ, (_ONE,))
    for name, keys_at in _READS_MORE.items():
        yield Command(name, Kind.READ, (keys_at,))
    for name in ("XREAD",):
        yield Command(name, Kind.READ, (Where(1, -1),))
    for name in _FREE:
        yield Command(name, Kind.FREE)


COMMANDS: dict[str, Command] = {
    each.name: each._replace(
        frees=each.name in _FREEING,
        served=each.name in _SERVED or each.kind is Kind.FREE,
        is_single=each.keys == (_ONE,) and each.name not in _STORING,
    )
    for each in _commands()
}
"""Every command that is known, by its name in capitals."""

UNKNOWN = Command(
    "",
    Kind.UNKNOWN,
    (_ALL,),
    (_ALL,),
    Form.REFUSED,
    why="kvmigrate does not know it, so it cannot tell what it changes",
)
"""A command that is not known: each of its arguments may be a key."""
