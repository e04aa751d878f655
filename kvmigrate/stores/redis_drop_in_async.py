"""A client of an application that writes mapped keys as one step with fence and marks, and is else as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from functools import cache
from typing import Any, TypeVar

from hiredis import pack_command
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.client import Pipeline
from redis.asyncio.cluster import ClusterPipeline
from redis.client import EMPTY_RESPONSE, NEVER_DECODE
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - the driver's own
    ResponseError,
    TimeoutError,  # noqa: A004 - the driver's own
    WatchError,
)

from kvmigrate.errors import (
    AmbiguousWriteError,
    ConfigError,
    SourceError,
    StaleError,
)
from kvmigrate.model import Fence
from kvmigrate.stores.client_base_async import AsyncCommands
from kvmigrate.stores.client_errors import is_of_all, lost, out_of_script, raise_as_client, read_again, undone
from kvmigrate.stores.client_plan import Plan, runs_of
from kvmigrate.stores.redis_client_calls_async import (
    LISTING,
    Aborted,
    AsyncClientCalls,
    Words,
    answer_in,
    answers_in,
    calls_of_one,
)
from kvmigrate.stores.redis_client_link_async import AsyncEach, AsyncLink
from kvmigrate.stores.redis_cluster_drop_in_async import mapped_cluster, with_pipelines

C = TypeVar("C")

# Most of the driver's own classes has no types.
_Client: Any = Redis
_Pipeline: Any = Pipeline
_OfCluster: Any = ClusterPipeline


class AsyncAloneLink(AsyncLink):
    """The link to one server, on the connections of its client."""

    def __init__(self, plain: Any, commands: AsyncCommands, scope: str) -> None:
        """Connect to nothing yet. Raises `ConfigError` where it is no client of one server."""
        super().__init__(plain, plain.response_callbacks, commands)
        self.calls: AsyncClientCalls = calls_of_one(plain, scope=scope)

    def piped(self, callbacks: Mapping[Any, Any]) -> AsyncAloneLink:
        """Return the same for a pipeline, which has its own callbacks."""
        if callbacks is self.callbacks:
            return self
        made = copy(self)
        made.callbacks = callbacks
        return made

    async def size(self, answer: Any) -> Any:
        """Ask for each of them."""
        own: int = await self.plain.execute_command("EXISTS", *self.calls.own_keys)
        return answer - own

    async def other_key(self) -> Any:
        """Scan all keys."""
        position = 0
        while True:
            position, page = await self.plain.execute_command("SCAN", position, "COUNT", 1000)
            for found in page:
                if not self.calls.is_own(found):
                    return found
            if not position:
                return None

    async def alone(self, plan: Plan) -> list[Any]:
        """Take a connection for it."""
        pool = self.plain.connection_pool

        async def send(_: Fence) -> Any:
            """Send it."""
            connection = await pool.get_connection()
            try:
                return await self.calls.transacted(connection, [plan], [plan.args])
            finally:
                await pool.release(connection)

        answers: list[Any] = await self.commands.together([plan], send)
        return answers


class AsyncMappedRedis(_Client):  # type: ignore[misc]  # see above
    """Made by `mapped`, never by itself: each client has a class of its own, below the one that it had."""

    _kvmigrate: AsyncAloneLink
    _wrapped: Any = None

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """As the client's own."""
        link = self._kvmigrate
        plan = link.commands.plan(args, link.calls.encoder)
        if plan is None:
            answer = await super().execute_command(*args, **options)
            return answer if args[0] not in LISTING else await link.without_own(args, answer)
        return await link.done(plan, args, options)

    def pipeline(self, *args: Any, **options: Any) -> Any:
        """As the client's own."""
        return _fenced(super().pipeline(*args, **options), self._kvmigrate)

    def json(self, *args: Any, **options: Any) -> Any:
        """As the client's own."""
        return with_pipelines(super().json(*args, **options), _fenced, self._kvmigrate)

    def ft(self, *args: Any, **options: Any) -> Any:
        """As the client's own."""
        return with_pipelines(super().ft(*args, **options), _fenced, self._kvmigrate)

    def ts(self, *args: Any, **options: Any) -> Any:
        """As the client's own."""
        return with_pipelines(super().ts(*args, **options), _fenced, self._kvmigrate)

    async def aclose(self, *args: Any, **options: Any) -> None:
        """As the client's own."""
        if self._wrapped is None:
            await super().aclose(*args, **options)
        else:
            self.connection = None
            await self._wrapped.aclose(*args, **options)

    def __del__(self, *args: Any, **options: Any) -> None:
        # The client that it was made of ends by itself.
        if self._wrapped is None:
            super().__del__(*args, **options)


class AsyncMappedPipeline(_Pipeline):  # type: ignore[misc]  # see above
    """As `AsyncMappedRedis`, for its pipelines."""

    _kvmigrate: AsyncAloneLink
    connection: Any

    async def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """As the pipeline's own. A write goes on another connection, which what is watched here notices as well."""
        link = self._kvmigrate
        plan = link.commands.plan(args, link.calls.encoder)
        if plan is None:
            return await super().immediate_execute_command(*args, **options)
        if not plan.is_read or await link.commands.reads_tables(plan):
            return await link.done(plan, args, options)
        return await super().immediate_execute_command(*args, **options)

    async def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - as the driver has it
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
            if not any(plans) or (reads_only and not await link.commands.reads_tables(reads[0])):
                plain: list[Any] = await super().execute(raise_on_error)
                return plain
            if self.scripts:
                await self.load_scripts()
            work = self._mapped_transaction if is_transaction else self._mapped_pipeline
            answers = await work(stack, plans)
        except Aborted as exc:
            self.annotate_exception(exc.error, exc.number, stack[exc.number - 1][0])
            raise exc.error from None
        except (SourceError, AmbiguousWriteError) as exc:
            raise_as_client(exc)
        finally:
            await self.reset()
        first = next((each for each in answers if isinstance(each, Exception)), None)
        if raise_on_error and first is not None:
            # The driver's own way knows errors of the server alone.
            if not isinstance(first, ResponseError):
                raise first
            self.raise_first_error(stack, answers)
        return answers

    async def _mapped_transaction(self, stack: list[Any], plans: Sequence[Plan | None]) -> list[Any]:
        link, mapped = self._kvmigrate, [plan for plan in plans if plan is not None]
        # As the driver does: what is wrong for want of arguments is not sent, and has its answer already.
        commands = [
            args if plan is None else plan.args
            for plan, (args, options) in zip(plans, stack, strict=True)
            if EMPTY_RESPONSE not in options
        ]

        async def send(_: Fence) -> Any:
            if self.connection is None:
                self.connection = await self.connection_pool.get_connection()
            if not self.watching:
                return await link.calls.transacted(self.connection, mapped, commands)
            try:
                return await link.calls.transact(self.connection, mapped, commands)
            except StaleError as exc:
                raise WatchError("the authority moved while keys were watched: begin anew") from exc

        raw = await link.commands.together(mapped, send)
        self.watching = False
        given = iter(raw)
        answers = []
        for args, options in stack:
            if EMPTY_RESPONSE in options:
                answers.append(options[EMPTY_RESPONSE])
                continue
            each = next(given)
            is_wrong = isinstance(each, Exception)
            answers.append(each if is_wrong else await link.finished(each, args, _without_never(options)))
        return answers

    async def _mapped_pipeline(self, stack: list[Any], plans: Sequence[Plan | None]) -> list[Any]:
        link, mapped = self._kvmigrate, [plan for plan in plans if plan is not None]
        fence = await link.commands.known(mapped)
        # Who writes is checked; where to read is as old as what this process heard last.
        read = next((plan for plan in mapped if plan.is_read), None)
        if read is not None and await link.commands.reads_tables(read):
            fence = None
        answers: list[Any] = []
        if fence is not None and all(plan.is_read or link.calls.keeps_order(plan) for plan in mapped):
            answers = await self._at_once(stack, plans, fence.epoch)
        refused = undone(plans, answers)
        reads = read_again(plans[: len(answers)], refused)
        if any(refused):
            link.commands.forget()
            await self._give_back()
        first, each = refused.index(True) if any(refused) else len(answers), AsyncEach(link)
        for number in range(first, len(stack)):
            (args, options), plan = stack[number], plans[number]
            # What was done is never done twice; a read may be behind a write that only comes now.
            if number < len(answers) and not (refused[number] or (reads[number] and each.refusal is None)):
                continue
            answers[number : number + 1] = [await each.one(plan, args, options)]
        return each.told(plans, answers)

    async def _give_back(self) -> None:
        """Let go of the connection, as what comes now takes its own, and the pool may have no other."""
        if not self.watching and self.connection is not None:
            connection, self.connection = self.connection, None
            await self.connection_pool.release(connection)

    async def _at_once(self, stack: list[Any], plans: Sequence[Plan | None], epoch: int) -> list[Any]:
        """Send all, and read all answers; those of the fence are among them."""
        calls = self._kvmigrate.calls
        if self.connection is None:
            self.connection = await self.connection_pool.get_connection()
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
            await connection.send_packed_command(packed)
            for start, end, writes in runs:
                if len(writes) > 1:
                    answers += await self._answers(connection, writes, stack[start:end])
                    continue
                for plan, (args, options) in zip(plans[start:end], stack[start:end], strict=True):
                    answers.append(await self._answer(connection, plan, args, options))
            is_done = True
        except (ConnectionError, TimeoutError, OSError) as exc:
            raise lost(exc) from exc
        finally:
            if not is_done:
                await connection.disconnect()
        return answers

    async def _answers(self, connection: Any, writes: Sequence[Plan], stack: Sequence[Any]) -> list[Any]:
        """Read the answers of several writes that are one call."""
        link = self._kvmigrate
        try:
            reply = await connection.read_response(disable_decoding=True)
        except ResponseError as exc:
            if is_of_all(exc):
                return [exc] * len(writes)
            raise lost(exc) from exc
        answers = []
        for raw, (args, options) in zip(answers_in(reply, writes), stack, strict=True):
            is_wrong = isinstance(raw, Exception)
            answers.append(raw if is_wrong else await link.finished(raw, args, options))
        return answers

    async def _answer(self, connection: Any, plan: Plan | None, args: Sequence[Any], options: dict[str, Any]) -> Any:
        try:
            if plan is None or plan.is_read:
                return await self.parse_response(connection, args[0], **options)
            raw = answer_in(await connection.read_response(disable_decoding=True), plan)
            return await self._kvmigrate.finished(raw, args, options)
        except ResponseError as exc:
            return out_of_script(exc)


def mapped(client: C, commands: AsyncCommands, *, scope: str) -> C:
    """Return a client that behaves as *client*, on its connections, and fences what it does to mapped keys.

    Raises:
        ConfigError: it is no client of one server.
    """
    plain: Any = client
    if isinstance(plain, RedisCluster) and not isinstance(plain, _OfCluster):
        return mapped_cluster(client, commands, scope=scope)
    if not isinstance(plain, Redis) or isinstance(plain, Pipeline):
        raise ConfigError(
            f"a {type(client).__module__}.{type(client).__name__} cannot be written through while it is migrated",
            hint="pass a redis.Redis or redis.RedisCluster to `Migration.redis`, and one of redis.asyncio to "
            "`AsyncMigration.redis`; of Sentinel the client of the master that it names",
        )
    if isinstance(plain, AsyncMappedRedis):
        raise ConfigError("this client is one that `redis` returned already", hint="pass the one that you opened")
    link = AsyncAloneLink(plain, commands, scope)
    # A class of its own: what the client makes of its class is fenced, too.
    below = _below(AsyncMappedRedis, type(plain))
    kind: Any = type(below.__name__, (below,), {"_kvmigrate": link, "__module__": below.__module__})
    made: Any = kind.__new__(kind)
    made.__dict__.update(plain.__dict__)
    made._wrapped = plain  # noqa: SLF001 - of its own class
    return made  # type: ignore[no-any-return]  # a subclass of the client's own class


def _fenced(pipeline: Any, link: AsyncAloneLink) -> Any:
    """Turn a pipeline of the client into one that fences."""
    kind: Any = type(pipeline)
    pipeline.__class__ = _below(AsyncMappedPipeline, kind)
    pipeline._kvmigrate = link.piped(pipeline.response_callbacks)  # noqa: SLF001 - of its own class
    return pipeline


@cache
def _below(mixin: Any, kind: Any) -> Any:
    bases = (mixin,) if issubclass(mixin, kind) else (mixin, kind)
    return type(kind.__name__, bases, {"__module__": kind.__module__})


def _packed(words: Words) -> bytes:
    # Its stub means a tuple of any length.
    return pack_command(tuple(words))  # type: ignore[arg-type, no-any-return]


def _without_never(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != NEVER_DECODE}
