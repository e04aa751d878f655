"""Commands of a client in one step with fence and marks: inside the function, or in a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import iscoroutinefunction, unwrap
from typing import Any

from redis.asyncio import Redis
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
from kvmigrate.stores.client_errors import OF_FENCE, lost
from kvmigrate.stores.client_plan import Plan
from kvmigrate.stores.redis_call_async import AsyncRedisCaller
from kvmigrate.stores.redis_change import fence_in, to_bytes
from kvmigrate.stores.redis_clients_async import place_at
from kvmigrate.stores.redis_refusal import is_unknown, is_without_functions, refusal
from kvmigrate.stores.redis_script import Script, script
from kvmigrate.stores.redis_shards import AloneKeys, is_own, rollback_key

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


class AsyncClientCalls:
    """Speaks to the server of one client, on its connections. For all its threads or tasks.

    Attributes:
        encoder: The client's rules.

        resp: The version of the protocol that the client speaks, 2 or 3.
    """

    def __init__(self, client: Redis, *, scope: str) -> None:
        """Connect to nothing yet. Raises `ConfigError` where it is no client of one server."""
        untyped: Any = client
        self._place = place_at(client)
        self._caller = AsyncRedisCaller(self._place)
        self._keys = AloneKeys(scope).of(b"")
        self._rollbacks = rollback_key(scope)
        # Without an event loop the driver packs in C, which knows UTF-8 alone.
        always_utf8 = not iscoroutinefunction(unwrap(untyped.connection_pool.get_connection))
        self.encoder = ClientEncoder(untyped.get_encoder(), always_utf8=always_utf8)
        self.resp = int(untyped.connection_pool.connection_kwargs.get("protocol") or DEFAULT_RESP_VERSION)

    @property
    def own_keys(self) -> Sequence[bytes]:
        """The tool's own keys."""
        return (*self._keys, self._rollbacks)

    def is_own(self, key: Any) -> bool:
        """Return whether a key, as the client gives it, is one of the tool itself."""
        return key is not None and is_own(self.encoder.encode(key))

    async def write(self, plan: Plan, epoch: int) -> Any:
        """Run one command with its marks; return its answer. Raises as `AsyncRedisWriter.write`."""
        reply = await self._caller.call(_called(plan), *self._rest(plan, epoch), is_write=True)
        return answer_in(reply, plan)

    def write_call(self, plan: Plan, epoch: int) -> Words:
        """Return the call that `write` makes; `answer_in` finds the answer in its reply."""
        return (*self._text_head(_called(plan)), *self._rest(plan, epoch))

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
        call: list[str | bytes | int] = [*self._text_head(_WRITE_MANY), 3 + len(named), *self._keys[:3], *named]
        call += (epoch, len(members), *members)
        resp = self.resp
        for plan in plans:
            call += (resp if plan.is_native else 2, len(plan.args), *plan.args)
        return call

    async def load(self) -> None:
        """Give the server the functions, where it lacks them."""
        await self._caller.call(_FENCE, 2, *self._keys[:2])

    def is_refused_by_fence(self, exc: ResponseError) -> bool:
        """Whether an answer says that the fence moved, or that the functions are missing: nothing was done."""
        return is_unknown(exc) or is_without_functions(exc) or str(exc).startswith(OF_FENCE)

    async def transact(self, connection: Any, plans: Sequence[Plan], commands: Sequence[Words]) -> list[Any]:
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
        """
        fence = await self._watched(connection)
        marks = list(dict.fromkeys(mark for plan in plans for mark in plan.marks))
        sent: list[Words] = [(b"MULTI",), *commands]
        if marks and fence.log is not Logging.NONE:
            sent.append((*self._text_head(_TOUCH), 3, *self._keys[:3], fence.epoch, *map(to_bytes, marks)))
        answers = await self._executed(connection, [*sent, (b"EXEC",)])
        if len(answers) > len(commands):
            touched = answers.pop()
            if isinstance(touched, ResponseError):
                # Nobody takes the functions away between two round trips, unless to do harm.
                raise lost(touched)
        return answers

    async def _watched(self, connection: Any) -> Fence:
        """Watch the fence and read it."""
        call = (*self._text_head(_FENCE), 2, *self._keys[:2])
        for _ in range(2):
            await connection.send_packed_command(connection.pack_commands([(b"WATCH", self._keys.fence), call]))
            await connection.read_response()
            try:
                found = await connection.read_response(disable_decoding=True)
            except ResponseError as exc:
                if not is_unknown(exc):
                    raise refusal(self._place.name, exc) from exc
                await self.load()
            else:
                break
        else:
            raise FenceMissingError(f"{self._place.name}: the server forgets its functions at once")
        if found is None:
            raise FenceMissingError(f"{self._place.name}: the store holds no fence for this mapping")
        fence, _ = fence_in(found)
        if fence.authority is not Authority.STORE:
            kind = SealedError if fence.authority is Authority.SEALED else StaleError
            raise kind(
                f"{self._place.name}: the fence is at epoch {fence.epoch} with authority {fence.authority.value}; "
                "nothing was written",
                epoch=fence.epoch,
                authority=fence.authority.value,
            )
        return fence

    async def _executed(self, connection: Any, sent: Sequence[Words]) -> list[Any]:
        wrong: Aborted | None = None
        try:
            await connection.send_packed_command(connection.pack_commands(sent))
            for number in range(len(sent) - 1):
                try:
                    await connection.read_response()
                except ResponseError as exc:
                    wrong = wrong or Aborted(number, exc)
            answers: list[Any] | None = await connection.read_response(disable_decoding=True)
        except ExecAbortError:
            if wrong is not None:
                raise wrong from None
            raise
        except (ConnectionError, TimeoutError, OSError) as exc:
            raise lost(exc) from exc
        if answers is None:
            raise WatchError("Watched variable changed.")
        return answers

    def _rest(self, plan: Plan, epoch: int) -> Words:
        keys = [to_bytes(key) for key in plan.keys]
        members = keys if plan.marks is plan.keys else [to_bytes(mark) for mark in plan.marks]
        resp = self.resp if plan.is_native else 2
        return (3 + len(keys), *self._keys[:3], *keys, epoch, resp, len(members), *members, *plan.args)

    def _text_head(self, called: Script) -> Words:
        """As `AsyncRedisCaller.head`, but a script goes as its text: nobody could send it anew in its place."""
        head = self._caller.head(called)
        return head if head[0] == b"FCALL" else (b"EVAL", called.text)


def _called(plan: Plan) -> Script:
    return _WRITE_FREEING if plan.frees else _WRITE


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
