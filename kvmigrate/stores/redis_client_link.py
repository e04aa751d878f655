# This file is generated from redis_client_link_async.py by tools/async_to_sync.py.
# Change that one instead.
"""What one client of an application, its pipelines and its copies share: how a command of mapped keys gets done.

`Link` is the generated twin.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from inspect import isawaitable
from time import monotonic
from typing import Any, Protocol

from redis.client import EMPTY_RESPONSE, NEVER_DECODE
from redis.exceptions import ResponseError

from kvmigrate.errors import (
    AmbiguousWriteError,
    BadValueError,
    CommandRefusedError,
    DeadlineError,
    FenceMissingError,
    KVMigrateError,
    OnlyInStoreError,
    SourceError,
    StaleError,
    TargetError,
    WriteRefusedError,
)
from kvmigrate.model import Fence
from kvmigrate.stores.client_base import Commands
from kvmigrate.stores.client_encoder import ClientEncoder
from kvmigrate.stores.client_errors import is_of_scripts, raise_as_client
from kvmigrate.stores.client_plan import DeclinedError, Plan
from kvmigrate.stores.redis_client_calls import LISTING, Aborted

_NOT_FOR_CALLBACKS = frozenset({"keys", "target_nodes", EMPTY_RESPONSE, NEVER_DECODE})
_AT_HAND = frozenset({bool, bytes, dict, int, list, str, type(None)})
_POLL_S = 0.02
_MOST_TRIES = 100

_ANSWERS = (ResponseError, CommandRefusedError, WriteRefusedError, BadValueError, OnlyInStoreError)
_REFUSALS = (StaleError, FenceMissingError, SourceError, TargetError, DeadlineError)
_HINT = "read what it writes before it goes out again; execute(raise_on_error=False) returns the reply of each command"


class Calls(Protocol):
    """How the server, or the servers, of one client are spoken to.

    Attributes:
        encoder: The client's rules.

        resp: The version of the protocol that the client speaks, 2 or 3.
    """

    encoder: ClientEncoder
    resp: int

    def is_own(self, key: Any) -> bool:
        """Return whether a key, as the client gives it, is one of the tool itself."""
        ...

    def write(self, plan: Plan, epoch: int) -> Any:
        """Run one command with its marks; return its answer. Raises as `RedisWriter.write`."""
        ...


class Link(ABC):
    """Does single commands.

    Attributes:
        plain: The client as it was.

        callbacks: What makes the client's replies of the server's answers.

        commands: Who decides.
    """

    calls: Calls

    def __init__(self, plain: Any, callbacks: Mapping[Any, Any], commands: Commands) -> None:
        """Connect to nothing yet."""
        self.plain, self.callbacks, self.commands = plain, callbacks, commands

    @abstractmethod
    def alone(self, plan: Plan) -> list[Any]:
        """Do one command in a transaction of its own; return its answer, the only one."""

    @abstractmethod
    def size(self, answer: Any) -> Any:
        """Return what DBSIZE answered without the keys of the tool itself, where it can be told."""

    @abstractmethod
    def other_key(self) -> Any:
        """Return a key that is not of the tool itself, looked for among all; ``None`` where there is none."""

    def done(self, plan: Plan, args: Sequence[Any], options: dict[str, Any]) -> Any:
        """Do one command that names mapped keys; return what the client returns."""
        try:
            if plan.is_read:
                if not self.commands.reads_tables(plan):
                    return self.plain.execute_command(*args, **options)
                raw = self.commands.read(plan)
            elif plan.in_script:
                raw = self._in_script(plan)
            elif plan.waits_s is not None:
                raw = self._waited(plan, plan.waits_s)
            else:
                [raw] = self.alone(plan)
        except Aborted as exc:
            raise exc.error from None
        except DeclinedError as exc:
            raise ResponseError(str(exc)) from None
        except (SourceError, AmbiguousWriteError) as exc:
            raise_as_client(exc)
        if isinstance(raw, dict) and self.calls.resp == 2:
            # Maps of the tables; those of a server have their shape already.
            raw = [part for pair in raw.items() for part in pair]
        if isinstance(raw, ResponseError):
            raise raw
        return self.finished(raw, args, options)

    def finished(self, raw: Any, args: Sequence[Any], options: dict[str, Any]) -> Any:
        """Return what the client makes of the server's answer."""
        return self.made_by(self.callbacks, raw, args, options)

    def made_by(self, callbacks: Mapping[Any, Any], raw: Any, args: Sequence[Any], options: dict[str, Any]) -> Any:
        """As `finished`, by these callbacks."""
        encoder = self.calls.encoder
        if options:
            if encoder.decodes and NEVER_DECODE not in options:
                raw = encoder.decoded(raw)
            options = {name: value for name, value in options.items() if name not in _NOT_FOR_CALLBACKS}
        elif encoder.decodes:
            raw = encoder.decoded(raw)
        # The driver's own mapping looks at the case of names at every look-up.
        callback = callbacks.get(args[0])
        if callback is None:
            return raw
        made = callback(raw, **options)
        if type(made) in _AT_HAND:
            return made
        return made if isawaitable(made) else made

    def without_own(self, args: Sequence[Any], answer: Any) -> Any:
        """Return what a command says of all keys, without those of the tool itself."""
        if args[0] not in LISTING:
            return answer
        if args[0] == "RANDOMKEY":
            return self._random_key(answer)
        if args[0] == "DBSIZE":
            return self.size(answer)
        if args[0] == "KEYS" and isinstance(answer, list):
            return [key for key in answer if not self.calls.is_own(key)]
        if args[0] == "SCAN" and len(answer) == 2:
            return (answer[0], [key for key in answer[1] if not self.calls.is_own(key)])
        return answer

    def _random_key(self, key: Any) -> Any:
        for _ in range(_MOST_TRIES):
            if not self.calls.is_own(key):
                return key
            key = self.plain.execute_command("RANDOMKEY")
        # There are hardly others, or none.
        return self.other_key()

    def _in_script(self, plan: Plan) -> Any:
        def send(fence: Fence) -> Any:
            return self.calls.write(plan, fence.epoch)

        try:
            return self.commands.write(plan, send)
        except SourceError as exc:
            if not is_of_scripts(exc.__cause__):
                raise
        # Nothing ran. In a transaction the server says what it thinks of the command itself.
        [raw] = self.alone(plan)
        return raw

    def _waited(self, plan: Plan, seconds: float) -> Any:
        """Try what would wait inside the server again and again; 0 seconds are for ever, as the server has it."""
        until = monotonic() + seconds
        [raw] = self.alone(plan)
        while raw is None and (not seconds or monotonic() < until):
            time.sleep(_POLL_S)
            if self.plain.execute_command("EXISTS", *plan.keys):
                [raw] = self.alone(plan)
        return raw


class Each:
    """Does commands of one pipeline, each by itself.

    Attributes:
        refusal: Why nobody may write now, or what does not answer. No other command waits for it once more.
    """

    def __init__(self, link: Link) -> None:
        """Do nothing yet."""
        self._link = link
        self.refusal: KVMigrateError | None = None

    def one(self, plan: Plan | None, args: Sequence[Any], options: dict[str, Any]) -> Any:
        """Do one; return its reply, or what it raised where the others may go on."""
        try:
            if plan is None:
                return self._link.plain.execute_command(*args, **options)
            if self.refusal is None:
                return self._link.done(plan, args, options)
        except _ANSWERS as exc:
            return exc
        except _REFUSALS as exc:
            self.refusal = exc
        return self.refusal

    def told(self, plans: Sequence[Plan | None], answers: list[Any]) -> list[Any]:
        """Return all replies; where others of the pipeline may have been done, what was refused says so."""
        others = [each for plan, each in zip(plans, answers, strict=True) if plan is None or not plan.is_read]
        refusal = self.refusal
        is_done = any(not isinstance(each, Exception) or isinstance(each, AmbiguousWriteError) for each in others)
        if is_done and refusal is not None:
            refusal.args = (f"{refusal}. This holds for a part of the pipeline: other commands of it were done",)
            refusal.hint = _HINT
        return answers
