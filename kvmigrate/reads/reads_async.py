"""The endpoints of one migration: what `Migration.endpoint` makes.

This module has a generated twin without ``await``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ParamSpec, TypeVar, cast

from kvmigrate.errors import ConfigError
from kvmigrate.intent import slug_of
from kvmigrate.model import Version, WriteResult
from kvmigrate.reads.by_key_async import (
    Load,
    Reached,
    Wrote,
    by_call,
    by_key,
    in_session,
    key_maker,
    load_plainly,
    nothing_lacks,
    session_wrote,
)
from kvmigrate.reads.compare import Comparator, comparator
from kvmigrate.reads.demotion import Demotion
from kvmigrate.reads.endpoint_async import AsyncRead, routed
from kvmigrate.reads.entities import entities_read
from kvmigrate.reads.metrics import prometheus
from kvmigrate.reads.pages_async import AsyncPages
from kvmigrate.reads.request import SessionToken
from kvmigrate.reads.router import Router
from kvmigrate.reads.shadow_async import AsyncShadow
from kvmigrate.reads.standby_tables_async import AsyncStandbyTables
from kvmigrate.reads.state import Consistency, EndpointState
from kvmigrate.reads.sticky import Finder, finder
from kvmigrate.reads.within_async import within
from kvmigrate.target.writer_base_async import AsyncItems, AsyncRowQuery
from kvmigrate.transform.mapping import Mapping

P = ParamSpec("P")
T = TypeVar("T")
M = TypeVar("M")
Reader = Callable[..., Awaitable[Any]]


class AsyncReads:
    """Makes readers that choose their side, and holds what they share.

    Attributes:
        router: What decides of them.
    """

    def __init__(
        self,
        router: Router,
        tables: AsyncItems,
        rows: AsyncRowQuery,
        last_write: Callable[[], Any],
        *,
        lacking: Wrote = nothing_lacks,
        reached: Reached | None = None,
        shadow: AsyncShadow | None = None,
        standby: AsyncStandbyTables | None = None,
        mapping: Mapping | None = None,
    ) -> None:
        """Read by key through *tables*, by SQL through *rows*, or both through *standby*, where one is named.

        *last_write* is what this thread or task wrote last, *lacking* the greatest version of what it wrote and the
        tables may lack, *reached* whether they have all of a key's writes.
        With *mapping* endpoints tell which entities they read.
        """
        self.router = router
        self._tables: AsyncItems = standby or tables
        self._rows: AsyncRowQuery = standby or rows
        self._last_write, self._lacking, self._reached, self._standby = last_write, lacking, reached, standby
        self._shadow, self._mapping = shadow or AsyncShadow(), mapping

    def endpoint(
        self,
        name: str,
        *,
        sticky: str = "",
        key: str = "",
        entities: Sequence[str] = (),
        consistency: Consistency = "eventual",
        compare: str | Comparator = "exact",
        load: Load = load_plainly,
        deadline_s: float = 0.25,
        demotion: Demotion | None = None,
    ) -> Callable[[Callable[P, Awaitable[T]]], AsyncRead[P, T]]:
        """Decorate the reader of the store; what it returns is called in its place, and chooses the side.

        Args:
            name: Of the endpoint; its flag is `slug_of` it.

            sticky: The property that decides: an argument of the reader, or of `request`. A flag may name another.

            key: The item's key made of arguments, such as ``client:{id}``: it is read from the tables through the
                mapping. Without it, the reader of the tables is added with ``.tables``.

            entities: Names of those that a reader by SQL looks at. A sampler that finds one of them divergent may send
                this endpoint back to the store, and one that tells neither key nor entities with any.

            consistency: With ``session`` a caller sees what it wrote, with ``strong`` what anybody wrote before the
                call, from the store where the tables lack it. Strong needs *key*, and asks the store each time.

            compare: Whether both sides said the same: ``exact``, ``unordered``, ``equal``, or a function of both.

            load: Makes of stored JSON text, or of a hash's fields, what the reader of the store returns.

            deadline_s: Seconds for each statement on the tables by key; of other readers, in an event loop, for all.

            demotion: When the endpoint goes back to the store by itself.

        Raises:
            ConfigError: the name is taken, or an argument is wrong.
        """
        if consistency not in {"eventual", "session", "strong"}:
            raise ConfigError(f"there is no consistency {consistency!r}", hint="eventual, session or strong")
        if consistency == "strong" and not (key and self._reached):
            raise _needs_key(name)
        state = EndpointState(name, slug_of(name), sticky, comparator(compare), demotion or Demotion())
        if self._mapping is not None:
            state.entities = entities_read(self._mapping, key, entities)
        state.deadline_s, state.consistency, state.offer = deadline_s, consistency, self._shadow.offer
        session = session_wrote(self._lacking)

        async def wrote() -> Version | None:
            """Tell what the tables may lack of the session."""
            # Once the tables lead, they have what was written before and since.
            return None if state.plan.leads else await session()

        async def reached(key: str) -> bool:
            """Tell whether the tables have what anybody wrote."""
            return state.plan.leads or self._reached is None or await self._reached(key)

        asks_first = reached if consistency == "strong" else None

        def decorate(kv: Callable[P, Awaitable[T]]) -> AsyncRead[P, T]:
            state.kv, state.find = kv, _finds(kv)
            if key:
                make = key_maker(key, kv)
                sees = wrote if consistency == "session" else None
                reader = by_key(make, self._tables, load, deadline_s=deadline_s, wrote=sees, reached=asks_first)
                state.tables = self._asked(reader, state)
                state.reached = by_call(make, reached)
            self.router.add(state)
            made = routed(state, kv)
            made.state = state
            _give_tables(made, self.router, wrote, self._asked)
            return made

        return decorate

    def metrics(self) -> str:
        """Return what this process counted as Prometheus text, for its page of metrics."""
        return prometheus(self.router)

    async def fetch(self, model: Callable[..., M], sql: str, *values: Any, deadline_s: float = 0.25) -> list[M]:
        """Query the tables, for readers of them: on connections of one's own, which answer in time or are given up.

        Args:
            model: Is called for each row with its columns by name, such as a dataclass, or ``dict``.

            sql: One statement, with ``%s`` for each value. Never put values into it.

            *values: In the order of their places.

            deadline_s: Seconds, for everything together, waiting for a connection included.

        Raises:
            DeadlineError: it took longer. TargetError: PostgreSQL failed or refused.
        """
        return [model(**row) for row in await self._rows.fetch(sql, values, deadline_s=deadline_s)]

    def pages(
        self,
        model: Callable[..., M],
        sql: str,
        *,
        order: Sequence[str],
        secret: bytes | Sequence[bytes],
        most: int = 1_000,
    ) -> AsyncPages[M]:
        """Query the tables in pages, each of which begins where the one before ended: nothing is counted and skipped.

        Args:
            model: As of `fetch`.

            sql: One SELECT without ORDER BY and LIMIT, with ``%s`` for each value, and ``%%`` for a per cent sign.

            order: Columns of the query such as ``"created_at desc"``; together they differ for each row, and none is
                null. An index on what is filtered by and on these makes each page cost as much as the first.

            secret: Signs cursors, 16 bytes or more. Of several the first signs, and all are accepted.

            most: Rows of a page.

        Raises:
            ConfigError: the secret is too short, or *order* is none.
        """
        secrets = [secret] if isinstance(secret, bytes) else list(secret)
        return AsyncPages(self._rows, model, sql, order=order, secrets=secrets, most=most)

    async def session(self) -> str:
        """Return a token of all that this thread or task wrote, for the session's later requests; "" before that.

        It is `WriteResult.token` of the last write, or of the latest that the tables may lack. Where they lack nothing
        and a standby is read, also how far that must be: one round trip, once for each write. With it queries may be
        read from the tables, too.

        Raises:
            DeadlineError, TargetError: the tables do not answer.
        """
        last: WriteResult | None = self._last_write()
        lacked = await self._lacking()
        if last is None or last.version is None:
            return "" if lacked is None else str(SessionToken(lacked))
        if lacked is not None:
            return str(SessionToken(max(last.version, lacked)))
        return str(SessionToken(last.version, 0 if self._standby is None else await self._standby.written()))

    async def close(self) -> None:
        """End what runs beside the requests, and release connections. Safe to call twice."""
        self.router.close()
        await self._shadow.close()
        await self._tables.close()
        await self._rows.close()

    def _asked(self, reader: Reader, state: EndpointState) -> Reader:
        return reader if self._standby is None else self._standby.asked(reader, state)


def _needs_key(name: str) -> ConfigError:
    return ConfigError(f"endpoint {name!r}: a query does not tell what it saw", hint="strong needs a key")


def _finds(kv: Callable[..., Any]) -> Callable[[str], Finder]:
    return lambda name: finder(kv, name)


def _give_tables(made: Any, router: Router, wrote: Wrote, asked: Callable[[Reader, EndpointState], Reader]) -> None:
    state: EndpointState = made.state

    def tables(reader: Callable[..., Any]) -> Callable[..., Any]:
        if state.consistency == "strong":
            raise _needs_key(state.name)
        timed = within(reader, state.deadline_s)
        state.tables = asked(in_session(timed, wrote) if state.consistency == "session" else timed, state)
        router.refresh(state)
        return reader

    made.tables = cast("Any", tables)
