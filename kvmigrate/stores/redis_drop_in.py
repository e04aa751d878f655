# This file is generated from redis_drop_in_async.py by tools/async_to_sync.py.
# Change that one instead.
"""A client of an application that writes mapped keys as one step with fence and marks, and is else as it was."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cache
from inspect import isawaitable
from time import monotonic
from typing import Any, NamedTuple, TypeVar

from hiredis import pack_command
from redis import Redis
from redis.client import EMPTY_RESPONSE, NEVER_DECODE, Pipeline
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - the driver's own
    NoPermissionError,
    OutOfMemoryError,
    ResponseError,
    TimeoutError,  # noqa: A004 - the driver's own
    WatchError,
)

from kvmigrate.errors import (
    AmbiguousWriteError,
    BadValueError,
    CommandRefusedError,
    ConfigError,
    SourceError,
    StaleError,
    WriteRefusedError,
)
from kvmigrate.model import Fence
from kvmigrate.stores.client_base import Commands
from kvmigrate.stores.client_errors import is_of_scripts, lost, out_of_script, raise_as_client
from kvmigrate.stores.client_plan import DeclinedError, Plan, runs_of
from kvmigrate.stores.redis_client_calls import LISTING, Aborted, ClientCalls, Words, answer_in, answers_in
from kvmigrate.stores.redis_refusal import is_passing

C = TypeVar("C")

_NOT_FOR_CALLBACKS = frozenset({"keys", EMPTY_RESPONSE, NEVER_DECODE})
_POLL_S = 0.02
_MOST_TRIES = 100

_ANSWERS = (ResponseError, CommandRefusedError, WriteRefusedError, BadValueError)
"""What one command of a pipeline may raise while the others go on."""

# Most of the driver's own classes has no types.
_Client: Any = Redis
_Pipeline: Any = Pipeline


class Link(NamedTuple):
    """What one client, its pipelines and its copies share.

    Attributes:
        plain: The client as it was.

        callbacks: What makes the client's replies of the server's answers.
    """

    plain: Any
    callbacks: Mapping[Any, Any]
    commands: Commands
    calls: ClientCalls

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
                [raw] = self._alone(plan)
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
        never = False
        if options:
            never = NEVER_DECODE in options
            options = {name: value for name, value in options.items() if name not in _NOT_FOR_CALLBACKS}
        if not never and self.calls.encoder.decodes:
            raw = self.calls.encoder.decoded(raw)
        if args[0] not in self.callbacks:
            return raw
        made = self.callbacks[args[0]](raw, **options)
        return made if isawaitable(made) else made

    def without_own(self, args: Sequence[Any], answer: Any) -> Any:
        """Return what a command says of all keys, without those of the tool itself."""
        if args[0] == "RANDOMKEY":
            return self._random_key(answer)
        if args[0] == "DBSIZE":
            own: int = self.plain.execute_command("EXISTS", *self.calls.own_keys)
            return answer - own
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
        position = 0
        while True:
            position, page = self.plain.execute_command("SCAN", position, "COUNT", 1000)
            for found in page:
                if not self.calls.is_own(found):
                    return found
            if not position:
                return None

    def _in_script(self, plan: Plan) -> Any:
        def send(fence: Fence) -> Any:
            return self.calls.write(plan, fence.epoch)

        try:
            return self.commands.write(plan, send)
        except SourceError as exc:
            if not is_of_scripts(exc.__cause__):
                raise
        # Nothing ran. In a transaction the server says what it thinks of the command itself.
        [raw] = self._alone(plan)
        return raw

    def _waited(self, plan: Plan, seconds: float) -> Any:
        """Try what would wait inside the server again and again; 0 seconds are for ever, as the server has it."""
        until = monotonic() + seconds
        [raw] = self._alone(plan)
        while raw is None and (not seconds or monotonic() < until):
            time.sleep(_POLL_S)
            if self.plain.execute_command("EXISTS", *plan.keys):
                [raw] = self._alone(plan)
        return raw

    def _alone(self, plan: Plan) -> list[Any]:
        """Do one command in a transaction of its own."""
        pool = self.plain.connection_pool

        def send(_: Fence) -> Any:
            connection = pool.get_connection()
            try:
                return self.transacted(connection, [plan], [plan.args])
            finally:
                pool.release(connection)

        answers: list[Any] = self.commands.together([plan], send)
        return answers

    def transacted(self, connection: Any, plans: Sequence[Plan], commands: Sequence[Any]) -> list[Any]:
        """Run a transaction while nobody else watches: begun anew where only the fence had moved.

        Raises:
            StaleError: the fence moved. Else as `ClientCalls.transact`, but never `WatchError`.
        """
        is_done = False
        try:
            answers = self.calls.transact(connection, plans, commands)
            is_done = True
        except WatchError as exc:
            raise StaleError("the fence moved during a transaction", epoch=0, authority="") from exc
        finally:
            if not is_done:
                # What it watches, and what it may still answer, would be the next caller's.
                connection.disconnect()
        return answers


class MappedRedis(_Client):  # type: ignore[misc]  # see above
    """Made by `mapped`, never by itself: each client has a class of its own, below the one that it had."""

    _kvmigrate: Link
    _wrapped: Any = None

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """As the client's own."""
        link = self._kvmigrate
        plan = link.commands.plan(args, link.calls.encoder)
        if plan is None:
            answer = super().execute_command(*args, **options)
            return answer if args[0] not in LISTING else link.without_own(args, answer)
        return link.done(plan, args, options)

    def pipeline(self, *args: Any, **options: Any) -> Any:
        """As the client's own."""
        return _fenced(super().pipeline(*args, **options), self._kvmigrate)

    def json(self, *args: Any, **options: Any) -> Any:
        """As the client's own."""
        return _with_pipelines(super().json(*args, **options), self._kvmigrate)

    def ft(self, *args: Any, **options: Any) -> Any:
        """As the client's own."""
        return _with_pipelines(super().ft(*args, **options), self._kvmigrate)

    def ts(self, *args: Any, **options: Any) -> Any:
        """As the client's own."""
        return _with_pipelines(super().ts(*args, **options), self._kvmigrate)

    def close(self, *args: Any, **options: Any) -> None:
        """As the client's own."""
        if self._wrapped is None:
            super().close(*args, **options)
        else:
            self.connection = None
            self._wrapped.close(*args, **options)

    def __del__(self, *args: Any, **options: Any) -> None:
        # The client that it was made of ends by itself.
        if self._wrapped is None:
            super().__del__(*args, **options)


class MappedPipeline(_Pipeline):  # type: ignore[misc]  # see above
    """As `MappedRedis`, for its pipelines."""

    _kvmigrate: Link
    connection: Any

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """As the pipeline's own. A write goes on another connection, which what is watched here notices as well."""
        link = self._kvmigrate
        plan = link.commands.plan(args, link.calls.encoder)
        if plan is None:
            return super().immediate_execute_command(*args, **options)
        if not plan.is_read or link.commands.reads_tables(plan):
            return link.done(plan, args, options)
        return super().immediate_execute_command(*args, **options)

    def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - as the driver has it
        """As the pipeline's own."""
        stack: list[Any] = list(self.command_stack)
        link = self._kvmigrate
        try:
            plans = [link.commands.plan(args, link.calls.encoder, is_piped=True) for args, _ in stack]
            # With an event loop `transaction` is a method, and the flag has another name.
            own = vars(self)
            is_transaction = own.get("is_transaction", own.get("transaction")) or self.explicit_transaction
            if is_transaction and any(plans):
                link.commands.note_transaction([plan for plan in plans if plan is not None])
            reads = [plan for plan in plans if plan is not None and plan.is_read]
            reads_only = len(reads) == len(plans) - plans.count(None)
            if not any(plans) or (reads_only and not link.commands.reads_tables(reads[0])):
                plain: list[Any] = super().execute(raise_on_error)
                return plain
            if self.scripts:
                self.load_scripts()
            work = self._mapped_transaction if is_transaction else self._mapped_pipeline
            answers = work(stack, plans)
        except Aborted as exc:
            self.annotate_exception(exc.error, exc.number, stack[exc.number - 1][0])
            raise exc.error from None
        except (SourceError, AmbiguousWriteError) as exc:
            raise_as_client(exc)
        finally:
            self.reset()
        first = next((each for each in answers if isinstance(each, Exception)), None)
        if raise_on_error and first is not None:
            # The driver's own way knows errors of the server alone.
            if not isinstance(first, ResponseError):
                raise first
            self.raise_first_error(stack, answers)
        return answers

    def _mapped_transaction(self, stack: list[Any], plans: Sequence[Plan | None]) -> list[Any]:
        link, mapped = self._kvmigrate, [plan for plan in plans if plan is not None]
        # As the driver does: what is wrong for want of arguments is not sent, and has its answer already.
        commands = [
            args if plan is None else plan.args
            for plan, (args, options) in zip(plans, stack, strict=True)
            if EMPTY_RESPONSE not in options
        ]

        def send(_: Fence) -> Any:
            if self.connection is None:
                self.connection = self.connection_pool.get_connection()
            if not self.watching:
                return link.transacted(self.connection, mapped, commands)
            try:
                return link.calls.transact(self.connection, mapped, commands)
            except StaleError as exc:
                raise WatchError("the authority moved while keys were watched: begin anew") from exc

        raw = link.commands.together(mapped, send)
        self.watching = False
        given = iter(raw)
        answers = []
        for args, options in stack:
            if EMPTY_RESPONSE in options:
                answers.append(options[EMPTY_RESPONSE])
                continue
            each = next(given)
            is_wrong = isinstance(each, Exception)
            answers.append(each if is_wrong else link.finished(each, args, _without_never(options)))
        return answers

    def _mapped_pipeline(self, stack: list[Any], plans: Sequence[Plan | None]) -> list[Any]:
        link, mapped = self._kvmigrate, [plan for plan in plans if plan is not None]
        fence = link.commands.known(mapped)
        # Who writes is checked; where to read is as old as what this process heard last.
        read = next((plan for plan in mapped if plan.is_read), None)
        if read is not None and link.commands.reads_tables(read):
            fence = None
        answers: list[Any] = []
        if fence is not None and all(plan.is_read or link.calls.keeps_order(plan) for plan in mapped):
            answers = self._at_once(stack, plans, fence.epoch)
        refused = _undone(link, plans, answers)
        if any(refused):
            link.commands.forget()
            self._give_back()
        first = refused.index(True) if any(refused) else len(answers)
        for number in range(first, len(stack)):
            (args, options), plan = stack[number], plans[number]
            # What was done is never done twice; a read may be behind a write that only comes now.
            if number < len(answers) and not (plan is not None and (refused[number] or plan.is_read)):
                continue
            answers[number : number + 1] = [self._one(plan, args, options)]
        return answers

    def _give_back(self) -> None:
        """Let go of the connection, as what comes now takes its own, and the pool may have no other."""
        if not self.watching and self.connection is not None:
            connection, self.connection = self.connection, None
            self.connection_pool.release(connection)

    def _one(self, plan: Plan | None, args: Sequence[Any], options: dict[str, Any]) -> Any:
        link = self._kvmigrate
        try:
            if plan is None:
                return link.plain.execute_command(*args, **options)
            return link.done(plan, args, options)
        except _ANSWERS as exc:
            return exc

    def _at_once(self, stack: list[Any], plans: Sequence[Plan | None], epoch: int) -> list[Any]:
        """Send all, and read all answers; those of the fence are among them."""
        calls = self._kvmigrate.calls
        if self.connection is None:
            self.connection = self.connection_pool.get_connection()
        connection: Any = self.connection
        runs, packed = list(runs_of(plans)), []
        for start, end, writes in runs:
            if not writes:
                packed += connection.pack_commands([args for args, _ in stack[start:end]])
            elif len(writes) == 1:
                packed.append(_packed(calls.write_call(writes[0], epoch)))
            else:
                packed.append(_packed(calls.write_many_call(writes, epoch)))
        answers: list[Any] = []
        is_done = False
        try:
            connection.send_packed_command(packed)
            for start, end, writes in runs:
                if len(writes) > 1:
                    answers += self._answers(connection, writes, stack[start:end])
                    continue
                for plan, (args, options) in zip(plans[start:end], stack[start:end], strict=True):
                    answers.append(self._answer(connection, plan, args, options))
            is_done = True
        except (ConnectionError, TimeoutError, OSError) as exc:
            raise lost(exc) from exc
        finally:
            if not is_done:
                connection.disconnect()
        return answers

    def _answers(self, connection: Any, writes: Sequence[Plan], stack: Sequence[Any]) -> list[Any]:
        """Read the answers of several writes that are one call."""
        link = self._kvmigrate
        try:
            reply = connection.read_response(disable_decoding=True)
        except ResponseError as exc:
            if _is_refused(link, exc) or is_passing(exc) or isinstance(exc, NoPermissionError):
                return [exc] * len(writes)
            # It says of all of them that something went wrong, and not where.
            raise lost(exc) from exc
        answers = []
        for raw, (args, options) in zip(answers_in(reply, writes), stack, strict=True):
            is_wrong = isinstance(raw, Exception)
            answers.append(raw if is_wrong else link.finished(raw, args, options))
        return answers

    def _answer(self, connection: Any, plan: Plan | None, args: Sequence[Any], options: dict[str, Any]) -> Any:
        try:
            if plan is None or plan.is_read:
                return self.parse_response(connection, args[0], **options)
            raw = answer_in(connection.read_response(disable_decoding=True), plan)
            return self._kvmigrate.finished(raw, args, options)
        except ResponseError as exc:
            return out_of_script(exc)


def mapped(client: C, commands: Commands, *, scope: str) -> C:
    """Return a client that behaves as *client*, on its connections, and fences what it does to mapped keys.

    Raises:
        ConfigError: it is no client of one server.
    """
    plain: Any = client
    if not isinstance(plain, Redis) or isinstance(plain, Pipeline):
        raise ConfigError(
            f"a {type(client).__module__}.{type(client).__name__} cannot be written through while it is migrated",
            hint="pass a redis.Redis to `Migration.redis` or a redis.Redis to `Migration.redis`, of one "
            "server or of the master that Sentinel names; for a cluster use `.store`",
        )
    if isinstance(plain, MappedRedis):
        raise ConfigError("this client is one that `redis` returned already", hint="pass the one that you opened")
    link = Link(plain, plain.response_callbacks, commands, ClientCalls(plain, scope=scope))
    # A class of its own: what the client makes of its class is fenced, too.
    below = _below(MappedRedis, type(plain))
    kind: Any = type(below.__name__, (below,), {"_kvmigrate": link, "__module__": below.__module__})
    made: Any = kind.__new__(kind)
    made.__dict__.update(plain.__dict__)
    made._wrapped = plain  # noqa: SLF001 - of its own class
    return made  # type: ignore[no-any-return]  # a subclass of the client's own class


def _fenced(pipeline: Any, link: Link) -> Any:
    """Turn a pipeline of the client into one that fences."""
    kind: Any = type(pipeline)
    pipeline.__class__ = _below(MappedPipeline, kind)
    pipeline._kvmigrate = link._replace(callbacks=pipeline.response_callbacks)  # noqa: SLF001 - of its own class
    return pipeline


def _with_pipelines(module: Any, link: Link) -> Any:
    """Have the commands of a module of the server make pipelines that fence."""
    own = module.pipeline

    def pipeline(*args: Any, **options: Any) -> Any:
        """As the module's own."""
        return _fenced(own(*args, **options), link)

    module.pipeline = pipeline
    return module


@cache
def _below(mixin: Any, kind: Any) -> Any:
    bases = (mixin,) if issubclass(mixin, kind) else (mixin, kind)
    return type(kind.__name__, bases, {"__module__": kind.__module__})


def _undone(link: Link, plans: Sequence[Plan | None], answers: Sequence[Any]) -> list[bool]:
    """Return which commands were refused and may still be done: none behind which a key of theirs was written."""
    written: set[str] = set()
    found = []
    for plan, each in zip(reversed(plans[: len(answers)]), reversed(answers), strict=True):
        is_undone = plan is not None and _is_refused(link, each) and written.isdisjoint(plan.keys)
        if plan is not None and not plan.is_read and not is_undone:
            written.update(plan.keys)
        found.append(is_undone)
    return found[::-1]


def _is_refused(link: Link, answer: Any) -> bool:
    if not isinstance(answer, ResponseError):
        return False
    is_nothing_done = link.calls.is_refused_by_fence(answer) or is_of_scripts(answer)
    return is_nothing_done or isinstance(answer, OutOfMemoryError)


def _packed(words: Words) -> bytes:
    # Its stub means a tuple of any length.
    return pack_command(tuple(words))  # type: ignore[arg-type, no-any-return]


def _without_never(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != NEVER_DECODE}
