"""What commands answer and leave behind, from what stood there: for counters, expiry, hashes and JSON. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation

from kvmigrate.dualwrite.served_found import Found, Left, UnservedError
from kvmigrate.dualwrite.served_json import json_delete, json_get, json_set
from kvmigrate.model import Item, ItemKind
from kvmigrate.stores.client_plan import DeclinedError

_MOST, _LEAST = 2**63 - 1, -(2**63)
_MOST_DIGITS = 17
"""Of numbers with a fraction: with more, a server's own sum may differ in the last ones."""

_NO_INTEGER = "value is not an integer or out of range"
_NO_FLOAT = "value is not a valid float"
_WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"


def _text(found: Found) -> bytes | None:
    if found.item is None:
        return None
    if not isinstance(found.item.value, bytes):
        raise DeclinedError(_WRONG_TYPE)
    return found.item.value


def _fields(found: Found) -> dict[bytes, bytes]:
    if found.item is None:
        return {}
    if found.item.kind is not ItemKind.HASH or not isinstance(found.item.value, Mapping):
        raise DeclinedError(_WRONG_TYPE)
    return dict(found.item.value)


def _integer(text: bytes, why: str = _NO_INTEGER) -> int:
    """Return an integer as servers read one: no sign but a minus, no zero before it, 64 bits."""
    digits = text.removeprefix(b"-")
    if not digits.isdigit() or (digits[:1] == b"0" and text != b"0") or not _LEAST <= int(text) <= _MOST:
        raise DeclinedError(why)
    return int(text)


def _sum(before: int, step: int) -> bytes:
    if not _LEAST <= before + step <= _MOST:
        raise DeclinedError("increment or decrement would overflow")
    return str(before + step).encode()


def _float_sum(before: bytes, step: bytes, why: str) -> bytes:
    try:
        parts = Decimal(before.decode("ascii")), Decimal(step.decode("ascii"))
    except (InvalidOperation, UnicodeDecodeError):
        raise DeclinedError(why) from None
    if not all(part.is_finite() for part in parts):
        raise UnservedError("it counts with what is no number")
    total = parts[0] + parts[1]
    if any(len(each.as_tuple().digits) > _MOST_DIGITS or each.adjusted() > _MOST_DIGITS for each in (*parts, total)):
        raise UnservedError("it counts with more digits than the tables and the store add alike")
    text = f"{total:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).encode()


def _kept(found: Found, value: bytes | Mapping[bytes, bytes], kind: ItemKind) -> Item:
    """Return a new value with the expiry that the old one had."""
    return Item(found.key, value, kind, None if found.item is None else found.item.expires_at_ms)


def _count(found: Found) -> Left:
    step = _integer(found.args[0]) if found.args else 1
    if found.name.startswith("DECR"):
        step = -step
    made = _sum(_integer(_text(found) or b"0"), step)
    return Left(int(made), _kept(found, made, ItemKind.JSON), is_changed=True)


def _count_float(found: Found) -> Left:
    made = _float_sum(_text(found) or b"0", found.args[0], _NO_FLOAT)
    return Left(made, _kept(found, made, ItemKind.JSON), is_changed=True)


_UNITS = {b"EX": 1000, b"PX": 1, b"EXAT": 1000, b"PXAT": 1}


def _moment(found: Found, text: bytes, unit: bytes) -> int:
    moment = _integer(text) * _UNITS[unit]
    return moment if unit.endswith(b"AT") else found.now_ms + moment


_EXPIRE_UNITS = {"EXPIRE": b"EX", "PEXPIRE": b"PX", "EXPIREAT": b"EXAT", "PEXPIREAT": b"PXAT"}


def _expire(found: Found) -> Left:
    until, options = _moment(found, found.args[0], _EXPIRE_UNITS[found.name]), {each.upper() for each in found.args[1:]}
    if len(options) > 1 or not options <= {b"NX", b"XX", b"GT", b"LT"}:
        raise UnservedError("the tables do not know its options")
    if found.item is None:
        return Left(0)
    before = found.item.expires_at_ms
    holds = {
        b"NX": before is None,
        b"XX": before is not None,
        b"GT": before is not None and until > before,
        b"LT": before is None or until < before,
    }
    if not all(holds[option] for option in options):
        return Left(0)
    return Left(1, found.item._replace(expires_at_ms=until) if until > found.now_ms else None, is_changed=True)


def _persist(found: Found) -> Left:
    if found.item is None or found.item.expires_at_ms is None:
        return Left(0)
    return Left(1, found.item._replace(expires_at_ms=None), is_changed=True)


def _get_and_expire(found: Found) -> Left:
    text, options = _text(found), [each.upper() for each in found.args]
    if found.item is None or not options:
        return Left(text)
    if options == [b"PERSIST"]:
        return _persist(found)._replace(reply=text)
    if len(options) != 2 or options[0] not in _UNITS:
        raise UnservedError("the tables do not know its options")
    if _integer(options[1]) <= 0:
        raise DeclinedError("invalid expire time in 'getex' command")
    until = _moment(found, options[1], options[0])
    return Left(text, found.item._replace(expires_at_ms=until) if until > found.now_ms else None, is_changed=True)


def _left(found: Found) -> Left:
    if found.item is None:
        return Left(-2)
    until = found.item.expires_at_ms
    if until is None:
        return Left(-1)
    time = until if found.name.endswith("EXPIRETIME") else max(until - found.now_ms, 0)
    return Left(time if found.name.startswith("P") else (time + 500) // 1000)


def _set_fields(found: Found) -> Left:
    before, pairs = _fields(found), found.args
    if not pairs or len(pairs) % 2:
        raise DeclinedError(f"wrong number of arguments for '{found.name.lower()}' command")
    after = {**before, **dict(zip(pairs[::2], pairs[1::2], strict=True))}
    reply = b"OK" if found.name == "HMSET" else len(after) - len(before)
    return Left(reply, _kept(found, after, ItemKind.HASH), is_changed=True)


def _set_new_field(found: Found) -> Left:
    before = _fields(found)
    if found.args[0] in before:
        return Left(0)
    return Left(1, _kept(found, {**before, found.args[0]: found.args[1]}, ItemKind.HASH), is_changed=True)


def _delete_fields(found: Found) -> Left:
    before, named = _fields(found), set(found.args)
    after = {name: value for name, value in before.items() if name not in named}
    gone = len(before) - len(after)
    return Left(gone, _kept(found, after, ItemKind.HASH) if after else None, is_changed=gone > 0)


def _count_field(found: Found) -> Left:
    before, (name, step) = _fields(found), found.args
    if found.name == "HINCRBYFLOAT":
        made = _float_sum(before.get(name, b"0"), step, "hash value is not a float")
    else:
        delta = _integer(step)
        made = _sum(_integer(before.get(name, b"0"), "hash value is not an integer"), delta)
    reply = made if found.name == "HINCRBYFLOAT" else int(made)
    return Left(reply, _kept(found, {**before, name: made}, ItemKind.HASH), is_changed=True)


READS_CLOCK = frozenset("EXPIRE PEXPIRE EXPIREAT PEXPIREAT GETEX TTL PTTL".split())
"""Commands that need to know what time it is."""

AT_ONE_KEY: dict[str, tuple[int, Callable[[Found], Left]]] = {
    **dict.fromkeys(("INCR", "DECR"), (0, _count)),
    **dict.fromkeys(("INCRBY", "DECRBY"), (1, _count)),
    "INCRBYFLOAT": (1, _count_float),
    **dict.fromkeys(_EXPIRE_UNITS, (1, _expire)),
    "PERSIST": (0, _persist),
    "GETEX": (0, _get_and_expire),
    **dict.fromkeys(("TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"), (0, _left)),
    **dict.fromkeys(("HSET", "HMSET"), (2, _set_fields)),
    "HSETNX": (2, _set_new_field),
    "HDEL": (1, _delete_fields),
    **dict.fromkeys(("HINCRBY", "HINCRBYFLOAT"), (2, _count_field)),
    "HGET": (1, lambda found: Left(_fields(found).get(found.args[0]))),
    "HMGET": (1, lambda found: Left([_fields(found).get(name) for name in found.args])),
    "HGETALL": (0, lambda found: Left(_fields(found))),
    "HKEYS": (0, lambda found: Left(list(_fields(found)))),
    "HVALS": (0, lambda found: Left(list(_fields(found).values()))),
    "HLEN": (0, lambda found: Left(len(_fields(found)))),
    "HEXISTS": (1, lambda found: Left(int(found.args[0] in _fields(found)))),
    "HSTRLEN": (1, lambda found: Left(len(_fields(found).get(found.args[0], b"")))),
    "JSON.GET": (0, json_get),
    "JSON.SET": (2, json_set),
    **dict.fromkeys(("JSON.DEL", "JSON.FORGET"), (0, json_delete)),
}
"""How many words each wants at least behind its key, and what it does."""

_MORE = frozenset(
    "EXPIRE PEXPIRE EXPIREAT PEXPIREAT GETEX HSET HMSET HDEL HMGET JSON.DEL JSON.FORGET JSON.GET JSON.SET".split()
)
"""Those that take more words than that."""

OF_HASHES = frozenset(name for name in AT_ONE_KEY if name.startswith("H"))
"""Commands of hashes, which want an entity that is one."""


_WORDS = {
    **dict.fromkeys(("GET", "GETDEL"), (2, 2)),
    "SET": (3, None),
    **dict.fromkeys(("SETNX", "GETSET"), (3, 3)),
    **dict.fromkeys(("SETEX", "PSETEX"), (4, 4)),
    "JSON.MGET": (3, None),
}
"""How many words the other commands have at least and at most, their names among them."""


def check_words(name: str, args: Sequence[bytes]) -> None:
    """Check that a command has as many words as it wants. Raises `DeclinedError`, in a server's words."""
    least, most = _WORDS.get(name, (2, None))
    is_odd = name == "MSET" and len(args) % 2 == 0
    if len(args) < least or (most is not None and len(args) > most) or is_odd:
        raise DeclinedError(f"wrong number of arguments for '{name.lower()}' command")


def left_by(found: Found) -> Left:
    """Return what a command answers and leaves behind.

    Raises:
        DeclinedError: a server would answer with this error, and do nothing.

        UnservedError: only the store can do it.
    """
    least, act = AT_ONE_KEY[found.name]
    if len(found.args) < least or (len(found.args) > least and found.name not in _MORE):
        raise DeclinedError(f"wrong number of arguments for '{found.name.lower()}' command")
    return act(found)
