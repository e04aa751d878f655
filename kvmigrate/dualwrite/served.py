# This file is generated from served_async.py by tools/async_to_sync.py.
# Change that one instead.
"""Commands that work while the tables are the authority: each is answered as the server would answer it."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from time import monotonic
from typing import Any, NamedTuple

from kvmigrate.dualwrite.served_commands import AT_ONE_KEY, OF_HASHES, READS_CLOCK, check_words, left_by
from kvmigrate.dualwrite.served_found import Found, UnservedError
from kvmigrate.dualwrite.served_json import json_at
from kvmigrate.dualwrite.store import Store
from kvmigrate.dualwrite.value import item_of
from kvmigrate.dualwrite.write import Write
from kvmigrate.errors import DeadlineError, NotAfterCutoverError, UnmappedKeyError
from kvmigrate.model import Item
from kvmigrate.stores.client_plan import DeclinedError, Plan
from kvmigrate.transform.mapping import Decode

_OK = b"OK"
_TRY_S = 5.0
_SETS = frozenset("SET SETNX GETSET SETEX PSETEX".split())
_TIMES = {b"EX": 1000, b"PX": 1, b"EXAT": 1000, b"PXAT": 1}
_KINDS = {b"NX": "if", b"XX": "if", b"GET": "get", b"KEEPTTL": "time", **dict.fromkeys(_TIMES, "time")}
"""A SET takes options of a kind that are the same; of times the last one holds."""


class _Options(NamedTuple):
    """Options of a SET."""

    only_new: bool = False
    only_old: bool = False
    returns_old: bool = False
    keeps_ttl: bool = False
    ttl_ms: int | None = None
    expires_at_ms: int | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it can be decided without what stands there."""
        return not (self.only_old or self.returns_old or self.keeps_ttl)


class Served:
    """Answers them through the store's own reads and writes."""

    def __init__(self, store: Store) -> None:
        """Read and write through *store*."""
        self._store = store

    def answer(self, plan: Plan) -> Any:
        """Do what is planned; return the answer as a server gives it.

        Raises:
            DeclinedError: a server would answer with this error.

            NotAfterCutoverError: it names other keys, too, or values or options that only the store knows.

            What `Store` raises.
        """
        if len(plan.mapped) != len(plan.keys):
            raise _refused(plan, "it names other keys beside those of the mapping; name these alone")
        check_words(plan.name, plan.args)
        if plan.name in _SETS:
            return self._answer_set(plan)
        match plan.name:
            case "GET":
                return self._value(plan, plan.keys[0])
            case "MGET":
                return [self._value(plan, key) for key in plan.keys]
            case "JSON.MGET":
                return [self._document(plan, key) for key in plan.keys]
            case "EXISTS":
                return sum([self._item(plan, key) is not None for key in plan.keys])
            case "DEL" | "UNLINK":
                return sum([self._delete(plan, key) is not None for key in dict.fromkeys(plan.keys)])
            case "GETDEL":
                return _text_of(plan, self._delete(plan, plan.keys[0]))
            case "MSET":
                # Each is a step of its own, and the last of one key is the one that stays.
                for key, value in dict(zip(plan.keys, plan.args[2::2], strict=True)).items():
                    self._set(plan._replace(keys=[key]), value, _Options())
                return _OK
        if plan.name in AT_ONE_KEY:
            return self._at_one_key(plan)
        raise _refused(plan, "it works on the store alone")

    def _at_one_key(self, plan: Plan) -> Any:
        key, until = plan.keys[0], monotonic() + _TRY_S
        while True:
            item = self._item(plan, key)
            if item is None and plan.name in OF_HASHES and self._store.entity(key).decode is not Decode.HASH:
                raise _refused(plan, "the mapping has no hash there")
            now_ms = self._store.tables_now_ms() if plan.name in READS_CLOCK else 0
            try:
                left = left_by(Found(plan.name, key, plan.args[2:], item, now_ms))
            except UnservedError as exc:
                raise _refused(plan, str(exc)) from None
            if not left.is_changed:
                return left.reply
            # An expiry is no part of what must stand there still: of two at once, one is the last.
            if self._wrote(Write(key, left.item, expect=item, only_new=item is None)):
                return left.reply
            _again(key, until)

    def _answer_set(self, plan: Plan) -> Any:
        args = plan.args
        match plan.name:
            case "SET":
                return self._set(plan, args[2], _options(plan, args[3:]))
            case "SETNX":
                return int(self._set(plan, args[2], _Options(only_new=True)) is not None)
            case "GETSET":
                return self._set(plan, args[2], _Options(returns_old=True))
        times = 1000 if plan.name == "SETEX" else 1
        return self._set(plan, args[3], _Options(ttl_ms=_number(plan, args[2]) * times))

    def _item(self, plan: Plan, key: str) -> Item | None:
        try:
            return self._store.item(key)
        except UnmappedKeyError:
            raise _refused(plan, "it is no single item, or a list or a set") from None

    def _value(self, plan: Plan, key: str) -> bytes | None:
        return _text_of(plan, self._item(plan, key))

    def _document(self, plan: Plan, key: str) -> bytes | None:
        try:
            return json_at(self._item(plan, key), plan.args[-1], of_several=True)
        except UnservedError as exc:
            raise _refused(plan, str(exc)) from None
        except DeclinedError:
            # Another type of value is nothing among several.
            return None

    def _delete(self, plan: Plan, key: str) -> Item | None:
        """Delete what stands there; return what it was."""
        until = monotonic() + _TRY_S
        while True:
            found = self._item(plan, key)
            if found is None or self._wrote(Write(key, None, expect=found)):
                return found
            _again(key, until)

    def _set(self, plan: Plan, value: bytes, options: _Options) -> bytes | None:
        key, until = plan.keys[0], monotonic() + _TRY_S
        item = item_of(key, value, self._store.entity(key))._replace(expires_at_ms=options.expires_at_ms)
        if options.is_plain:
            done = self._wrote(Write(key, item, options.ttl_ms, only_new=options.only_new))
            return _OK if done else None
        while True:
            found = self._item(plan, key)
            old = _text_of(plan, found)
            if (found is None and options.only_old) or (found is not None and options.only_new):
                return old if options.returns_old else None
            if options.keeps_ttl and found is not None:
                item = item._replace(expires_at_ms=found.expires_at_ms)
            write = Write(key, item, options.ttl_ms, keep_ttl=options.keeps_ttl, expect=found, only_new=found is None)
            if self._wrote(write):
                return old if options.returns_old else _OK
            _again(key, until)

    def _wrote(self, write: Write) -> bool:
        [result] = self._store.way().write([write])
        return result is not None


def _options(plan: Plan, words: Sequence[bytes]) -> _Options:
    found, given, kinds = _Options(), iter(words), set[tuple[str, bytes]]()
    for each in given:
        kinds.add((_KINDS.get(each.upper(), ""), each.upper()))
        match each.upper():
            case b"NX":
                found = found._replace(only_new=True)
            case b"XX":
                found = found._replace(only_old=True)
            case b"GET":
                found = found._replace(returns_old=True)
            case b"KEEPTTL":
                found = found._replace(keeps_ttl=True)
            case (b"EX" | b"PX" | b"EXAT" | b"PXAT") as unit:
                until = _number(plan, next(given, b"")) * _TIMES[unit]
                is_moment = unit.endswith(b"AT")
                found = found._replace(expires_at_ms=until if is_moment else None, ttl_ms=None if is_moment else until)
            case _:
                raise _refused(plan, f"the tables do not know its option {each.decode('latin-1')[:50]}")
    if len(kinds) != len({kind for kind, _ in kinds}):
        raise DeclinedError("syntax error")
    return found


def _number(plan: Plan, text: bytes) -> int:
    if not text.isdigit() or not int(text):
        raise _refused(plan, "its expiry is no number of seconds or milliseconds")
    return int(text)


def _text_of(plan: Plan, item: Item | None) -> bytes | None:
    if item is None:
        return None
    if not isinstance(item.value, bytes):
        raise _refused(plan, f"it holds a {item.kind}, of which only the store knows the parts")
    return item.value


def _refused(plan: Plan, why: str) -> NotAfterCutoverError:
    return NotAfterCutoverError(
        f"{plan.name} of {plan.keys[0]!r} is refused: the tables are the authority, and {why}",
        hint="write it through `Migration.store`, or take the command out before the authority moves",
        command=plan.name,
        key=plan.keys[0],
    )


def _again(key: str, until: float) -> None:
    if monotonic() >= until:
        raise DeadlineError(
            f"{key!r} was changed by others again and again for {_TRY_S:g} s",
            hint="nothing was written; write this key less often, or from one place",
            key=key,
        )
    time.sleep(random.uniform(0.0005, 0.01))  # noqa: S311 - jitter, not a secret
