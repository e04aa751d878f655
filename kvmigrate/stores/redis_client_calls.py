# This file is generated from redis_client_calls_async.py by tools/async_to_sync.py.
# Change that one instead.
"""Commands of a client in one step with fence and marks: inside the function, or in a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import iscoroutinefunction, unwrap
from typing import Any

from redis import Redis
from redis.connection import DEFAULT_RESP_VERSION  # type: ignore[attr-defined]  # not exported, and nowhere else in older ones
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - the driver's own
    ExecAbortError,
    ResponseError,
    TimeoutError,  # noqa: A004 - the driver's own
    WatchError,
)

from kvmigrate.errors import FenceMissingError, SealedError, StaleError
from kvmigrate.model import Authority, Fence, Logging
from kvmigrate.stores.client_encoder import ClientEncoder
from kvmigrate.stores.client_errors import lost
from kvmigrate.stores.client_plan import Plan
from kvmigrate.stores.redis_call import RedisCaller
from kvmigrate.stores.redis_change import fence_in, to_bytes
from kvmigrate.stores.redis_clients import place_at
from kvmigrate.stores.redis_refusal import ELSEWHERE, is_unknown, refusal
from kvmigrate.stores.redis_script import Script, script
from kvmigrate.stores.redis_shards import AloneKeys, ShardKeys, SlotKeys, is_own, rollback_key

_FENCE, _TOUCH = script("fence"), script("touch")
_WRITE, _WRITE_FREEING, _WRITE_MANY = script("write"), script("write_freeing"), script("write_many")

_COUNTERS = frozenset("INCR INCRBY DECR DECRBY HINCRBY".split())

LISTING = frozenset({"DBSIZE", "KEYS", "RANDOMKEY", "SCAN"})
"""Commands that tell of all keys, among them the tool's own."""

Words = Sequence[str | bytes | int]
"""A command, ready to be sent."""


class Aborted(Exception):  # noqa: N818 - never leaves this package
    """The server took a command of a transaction for wrong, and did none of them."""

    def __init__(self, number: int, error: ResponseError) -> None:
        """Keep which command that was, the first being number 1."""
        super().__init__(number)
        self.number, self.error = number, error


class ClientCalls:
    """Speaks to the server of one client, on its connections. For all its threads or tasks.

    Attributes:
        encoder: The client's rules.

        resp: The version of the protocol that the client speaks, 2 or 3.
    """

    def __init__(
        self, name: str, caller: RedisCaller, shards: AloneKeys | SlotKeys, encoder: ClientEncoder, resp: int
    ) -> None:
        """Speak to the server *name* by *caller*; *shards* says where fence and marks of a key are."""
        self._name, self._caller, self._shards = name, caller, shards
        self._is_node = isinstance(shards, SlotKeys)
        self.encoder, self.resp = encoder, resp

    @property
    def own_keys(self) -> Sequence[bytes]:
        """The tool's own keys of a server that is one shard."""
        return (*self._shards.of(b""), rollback_key(self._shards.scope))

    def is_own(self, key: Any) -> bool:
        """Return whether a key, as the client gives it, is one of the tool itself."""
        return key is not None and is_own(self.encoder.encode(key))

    def write(self, plan: Plan, epoch: int) -> Any:
        """Run one command with its marks; return its answer. Raises as `RedisWriter.write`."""
        rest = behind_name(plan, epoch, self._shards, self.resp)
        return answer_in(self._caller.call(function_of(plan), *rest, is_write=True), plan)

    def write_call(self, plan: Plan, epoch: int) -> Words:
        """Return the call that `write` makes; `answer_in` finds the answer in its reply."""
        return (*self._text_head(function_of(plan)), *behind_name(plan, epoch, self._shards, self.resp))

    def keeps_order(self, plan: Plan) -> bool:
        """Whether `write_call` does a command where it stands in a pipeline: scripts of older servers add no floats."""
        return plan.in_script and (plan.name != "INCRBYFLOAT" or self._caller.head(_WRITE)[0] == b"FCALL")

    def write_many_call(self, plans: Sequence[Plan], epoch: int) -> Words:
        """Return the call that does several in one step; `answers_in` finds the answers in its reply."""
        # Each key once: they say where the call is to go, and who is not let at them.
        keys = dict.fromkeys(key for plan in plans for key in plan.keys)
        marks = dict.fromkeys(mark for plan in plans for mark in plan.marks)
        named = list(map(to_bytes, keys))
        members = named if len(marks) == len(keys) and marks.keys() == keys.keys() else list(map(to_bytes, marks))
        own = self._shards.of(named[0])[:3]
        call: list[str | bytes | int] = [*self._text_head(_WRITE_MANY), 3 + len(named), *own, *named]
        call += (epoch, len(members), *members)
        resp = self.resp
        for plan in plans:
            call += (resp if plan.is_native else 2, len(plan.args), *plan.args)
        return call

    def transact(self, connection: Any, plans: Sequence[Plan], commands: Sequence[Words]) -> list[Any]:
        """Run commands in one transaction with their marks; return their answers, errors among them.

        Args:
            connection: With what the caller watches there already, if anything.

            plans: Of those that name mapped keys.

            commands: All, in their order.

        Raises:
            StaleError, FenceMissingError: the fence says so; nothing was done.

            WatchError: the fence moved meanwhile, or what the caller watches; nothing was done.

            LostConnectionError, LostAnswerError: the transaction may have happened or not.

            Aborted: the server took one of the commands for wrong, and did none.

            ResponseError: one of `ELSEWHERE`, of a node of a cluster; nothing was done.
        """
        own = self._shards.of(to_bytes(plans[0].keys[0]))
        fence = self._watched(connection, own)
        marks = list(dict.fromkeys(mark for plan in plans for mark in plan.marks))
        sent: list[Words] = [(b"MULTI",), *commands]
        if marks and fence.log is not Logging.NONE:
            sent.append((*self._text_head(_TOUCH), 3, *own[:3], fence.epoch, *map(to_bytes, marks)))
        answers = self._executed(connection, [*sent, (b"EXEC",)])
        if len(answers) > len(commands):
            touched = answers.pop()
            if isinstance(touched, ResponseError):
                # Nobody takes the functions away between two round trips, unless to do harm.
                raise lost(touched)
        return answers

    def transacted(self, connection: Any, plans: Sequence[Plan], commands: Sequence[Words]) -> list[Any]:
        """Run a transaction while nobody else watches: begun anew where only the fence had moved.

        Raises:
            StaleError: the fence moved. Else as `transact`, but never `WatchError`.
        """
        is_done = False
        try:
            answers = self.transact(connection, plans, commands)
            is_done = True
        except WatchError as exc:
            raise StaleError("the fence moved during a transaction", epoch=0, authority="") from exc
        finally:
            if not is_done:
                # What it watches, and what it may still answer, would be the next caller's.
                connection.disconnect()
        return answers

    def _watched(self, connection: Any, own: ShardKeys) -> Fence:
        """Watch the fence and read it."""
        call = (*self._text_head(_FENCE), 2, *own[:2])
        for _ in range(2):
            connection.send_packed_command(connection.pack_commands([(b"WATCH", own.fence), call]))
            connection.read_response()
            try:
                found = connection.read_response(disable_decoding=True)
            except ResponseError as exc:
                if self._is_node and isinstance(exc, ELSEWHERE):
                    raise
                if not is_unknown(exc):
                    raise refusal(self._name, exc) from exc
                # It is given the functions where it lacks them.
                self._caller.call(_FENCE, 2, *own[:2])
            else:
                break
        else:
            raise FenceMissingError(f"{self._name}: the server forgets its functions at once")
        if found is None:
            raise FenceMissingError(f"{self._name}: the store holds no fence for this mapping")
        fence, _ = fence_in(found)
        if fence.authority is not Authority.STORE:
            kind = SealedError if fence.authority is Authority.SEALED else StaleError
            raise kind(
                f"{self._name}: the fence is at epoch {fence.epoch} with authority {fence.authority.value}; "
                "nothing was written",
                epoch=fence.epoch,
                authority=fence.authority.value,
            )
        return fence

    def _executed(self, connection: Any, sent: Sequence[Words]) -> list[Any]:
        wrong: Aborted | None = None
        try:
            connection.send_packed_command(connection.pack_commands(sent))
            for number in range(len(sent) - 1):
                try:
                    connection.read_response()
                except ResponseError as exc:
                    wrong = wrong or Aborted(number, exc)
            answers: list[Any] | None = connection.read_response(disable_decoding=True)
        except ExecAbortError:
            if wrong is None:
                raise
            raise (wrong.error if self._is_node and isinstance(wrong.error, ELSEWHERE) else wrong) from None
        except (ConnectionError, TimeoutError, OSError) as exc:
            raise lost(exc) from exc
        if answers is None:
            raise WatchError("Watched variable changed.")
        return answers

    def _text_head(self, called: Script) -> Words:
        """As `RedisCaller.head`, but a script goes as its text: nobody could send it anew in its place."""
        head = self._caller.head(called)
        return head if head[0] == b"FCALL" else (b"EVAL", called.text)


def calls_of_one(client: Redis, *, scope: str) -> ClientCalls:
    """Return how to speak to the server of *client*. Raises `ConfigError` where it is no client of one server."""
    untyped: Any = client
    place, pool = place_at(client), untyped.connection_pool
    # Without an event loop the driver packs in C, and takes fewer types.
    in_c = not iscoroutinefunction(unwrap(pool.get_connection))
    encoder = ClientEncoder(untyped.get_encoder(), in_c=in_c)
    caller, resp = RedisCaller(place), resp_of(pool.connection_kwargs)
    return ClientCalls(place.name, caller, AloneKeys(scope), encoder, resp)


def resp_of(settings: Mapping[str, Any]) -> int:
    """Return the version of the protocol that a client of these settings speaks."""
    return int(settings.get("protocol") or DEFAULT_RESP_VERSION)


def function_of(plan: Plan) -> Script:
    """Return the function that runs a command."""
    return _WRITE_FREEING if plan.frees else _WRITE


def behind_name(plan: Plan, epoch: int, shards: AloneKeys | SlotKeys, resp: int) -> Words:
    """Return what stands behind the name of that function in a call."""
    keys = [to_bytes(key) for key in plan.keys]
    members = keys if plan.marks is plan.keys else [to_bytes(mark) for mark in plan.marks]
    if not plan.is_native:
        resp = 2
    return (3 + len(keys), *shards.of(keys[0])[:3], *keys, epoch, resp, len(members), *members, *plan.args)


def answer_in(reply: Any, plan: Plan) -> Any:
    """Return the command's own answer in what the function answers.

    Raises:
        ResponseError: it is none: the connection is inside a transaction that somebody began by hand.
    """
    if not isinstance(reply, list):
        told = "a write of a mapped key in a MULTI that was sent by hand: use pipeline(), which knows how to answer"
        raise ResponseError(told)
    return _own(reply[2] if len(reply) > 2 else None, plan)


def answers_in(reply: Any, plans: Sequence[Plan]) -> list[Any]:
    """Return the commands' own answers, errors among them, in what the function for several answers."""
    return [_own(each[0] if each else None, plan) for each, plan in zip(reply[2:], plans, strict=True)]


def _own(answer: Any, plan: Plan) -> Any:
    # Doubles do not hold every integer, so the function gives those of counters as text.
    return int(answer) if isinstance(answer, bytes) and plan.name in _COUNTERS else answer
