"""A pipeline of a client of a cluster that writes mapped keys: divided by slots, all nodes at once.

`AsyncSlotPipeline` has a generated twin without ``await``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hiredis import pack_command
from redis.client import EMPTY_RESPONSE
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - the driver's own
    MaxConnectionsError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004 - the driver's own
)

from kvmigrate.errors import AmbiguousWriteError, SourceError
from kvmigrate.stores.client_errors import (
    is_of_all,
    is_refused_by_fence,
    is_undone,
    is_wrong,
    lost,
    out_of_script,
    read_again,
)
from kvmigrate.stores.client_plan import Plan, runs_of
from kvmigrate.stores.redis_client_calls_async import Words, answer_in, answers_in
from kvmigrate.stores.redis_client_link_async import AsyncEach
from kvmigrate.stores.redis_clients_async import Address
from kvmigrate.stores.redis_cluster_client import Queued, is_read
from kvmigrate.stores.redis_cluster_link_async import AsyncClusterLink
from kvmigrate.stores.redis_refusal import ELSEWHERE

_LOST = (ConnectionError, TimeoutError, OSError)


class _NotSentError(Exception):
    """Nothing was sent, or what may be sent again. Never leaves this module."""


_NOT_SENT = _NotSentError()


class _Line:
    """What goes to one node together: runs of commands of one slot each, by their numbers, and the writes of each."""

    def __init__(self) -> None:
        self.runs: list[tuple[Sequence[int], Sequence[Plan]]] = []
        self.packed: list[bytes] = []
        self.pool: Any = None
        self.connection: Any = None
        self.is_done = False


class AsyncSlotPipeline:
    """Runs it once. In one slot commands keep their order, which is all that the driver's own pipeline promises, too.

    Slots with writes of mapped keys go over connections of the link; all else goes through a pipeline of the client.
    """

    def __init__(self, link: AsyncClusterLink, queue: Sequence[Queued], plans: Sequence[Plan | None]) -> None:
        """Send nothing yet."""
        self._link, self._queue, self._plans = link, queue, plans
        self._answers: list[Any] = [_NOT_SENT] * len(queue)
        self._writes_slots: dict[int, list[int]] = {}
        self._homes: dict[int, Address] = {}
        self._lost_nodes: dict[Address | None, Exception] = {}
        self._each = AsyncEach(link)

    async def run(self) -> list[Any]:
        """Return all replies in order, errors among them.

        Raises:
            RedisClusterException: a command names keys of several slots, or none that tells where it goes.

            What `AsyncCommands` raises before anything is sent. What is refused later is an answer.
        """
        link, plans = self._link, self._plans
        mapped = [plan for plan in plans if plan is not None]
        fence = await link.commands.known(mapped)
        # Who writes is checked; where to read is as old as what this process heard last.
        read = next((plan for plan in mapped if plan.is_read), None)
        if read is not None and await link.commands.reads_tables(read):
            fence = None
        slots = [await link.slot(plan, each.args) for plan, each in zip(plans, self._queue, strict=True)]
        fenced = {
            slot
            for plan, slot in zip(plans, slots, strict=True)
            if plan is not None and not (plan.is_read and fence is not None)
        }
        others = []
        for number, slot in enumerate(slots):
            if slot is None or slot not in fenced:
                others.append(number)
            else:
                self._writes_slots.setdefault(slot, []).append(number)
        await self._plainly(others)
        if fence is not None:
            await self._at_once(fence.epoch)
        for slot, numbers in self._writes_slots.items():
            await self._again(slot, numbers)
        return self._each.told(plans, self._answers)

    async def _plainly(self, numbers: Sequence[int]) -> None:
        if not numbers:
            return
        pipe = self._link.plain.pipeline()
        for number in numbers:
            pipe.execute_command(*self._queue[number].args, **self._queue[number].options)
        for number, answer in zip(numbers, await pipe.execute(raise_on_error=False), strict=True):
            self._answers[number] = answer

    async def _at_once(self, epoch: int) -> None:
        """Send to all nodes, then read of all; what is not known then stays not sent."""
        nodes, lines = self._link.calls.nodes, await self._lines()
        try:
            for address, line in lines.items():
                # The client that is asked at the end may be another.
                line.pool = nodes.client(address).connection_pool
                try:
                    line.connection = await line.pool.get_connection()
                except MaxConnectionsError:
                    continue
                except (RedisError, OSError):
                    nodes.doubt()
                    continue
                self._pack(line, address, epoch)
            opened = [line for line in lines.values() if line.connection is not None]
            for line in opened:
                try:
                    await line.connection.send_packed_command(line.packed)
                except _LOST as exc:
                    self._lose(line, exc)
            for line in opened:
                if line.runs:
                    await self._read(line)
        finally:
            for line in lines.values():
                if line.connection is not None:
                    if not line.is_done:
                        await line.connection.disconnect()
                    await line.pool.release(line.connection)

    async def _lines(self) -> dict[Address, _Line]:
        calls, lines = self._link.calls, dict[Address, _Line]()
        for slot, numbers in self._writes_slots.items():
            plans = [self._plans[number] for number in numbers]
            try:
                address = await calls.nodes.owner(slot)
            except SourceError:
                continue
            node, self._homes[slot] = calls.at(address), address
            # What is no single step goes by itself, and what is behind it in its slot as well.
            if all(plan is None or plan.is_read or node.keeps_order(plan) for plan in plans):
                runs = [(numbers[start:end], writes) for start, end, writes in runs_of(plans)]
                lines.setdefault(address, _Line()).runs += runs
        return lines

    def _pack(self, line: _Line, address: Address, epoch: int) -> None:
        node, encode = self._link.calls.at(address), self._link.calls.encoder.encode
        for numbers, writes in line.runs:
            if not writes:
                commands = [self._queue[number].args for number in numbers]
                line.packed += line.connection.pack_commands([(args[0], *map(encode, args[1:])) for args in commands])
            elif len(writes) == 1:
                line.packed.append(_packed(node.write_call(writes[0], epoch)))
            else:
                line.packed.append(_packed(node.write_many_call(writes, epoch)))

    def _lose(self, line: _Line, exc: BaseException) -> None:
        """Note what of a line has no answer. Reads alone go out again."""
        for numbers, writes in line.runs:
            for number in numbers:
                if self._answers[number] is not _NOT_SENT:
                    continue
                if writes:
                    self._answers[number] = lost(exc)
                elif self._plans[number] is None and not is_read(self._queue[number].args):
                    self._answers[number] = exc
        line.runs = []
        self._link.calls.nodes.doubt()

    async def _read(self, line: _Line) -> None:
        try:
            for numbers, writes in line.runs:
                if writes:
                    answers = await self._answers_of_writes(line.connection, numbers, writes)
                    for number, answer in zip(numbers, answers, strict=True):
                        self._answers[number] = answer
                    continue
                for number in numbers:
                    self._answers[number] = await self._answer(line.connection, self._queue[number])
        except _LOST as exc:
            self._lose(line, exc)
        else:
            line.is_done = True

    async def _answers_of_writes(self, connection: Any, numbers: Sequence[int], writes: Sequence[Plan]) -> list[Any]:
        try:
            reply = await connection.read_response(disable_decoding=True)
            raw = answers_in(reply, writes) if len(writes) > 1 else [answer_in(reply, writes[0])]
        except ResponseError as exc:
            if len(writes) == 1:
                return [out_of_script(exc)]
            return [exc if is_of_all(exc) or isinstance(exc, ELSEWHERE) else lost(exc)] * len(writes)
        return [await self._finished(each, self._queue[number]) for each, number in zip(raw, numbers, strict=True)]

    async def _answer(self, connection: Any, command: Queued) -> Any:
        try:
            raw = await connection.read_response(disable_decoding=True)
        except ResponseError as exc:
            return command.options.get(EMPTY_RESPONSE, exc)
        return await self._finished(raw, command)

    async def _finished(self, raw: Any, command: Queued) -> Any:
        if isinstance(raw, Exception):
            return raw
        return await self._link.finished(raw, command.args, command.options)

    async def _one(self, number: int, slot: int) -> Any:
        node = self._homes.get(slot)
        if node in self._lost_nodes:
            return self._lost_nodes[node]
        try:
            return await self._each.one(self._plans[number], *self._queue[number])
        except _LOST as exc:
            if not isinstance(exc, AmbiguousWriteError):
                # Not every command shall wait for what did not answer the first.
                self._lost_nodes[node] = exc
            return exc
        except (AmbiguousWriteError, RedisError) as exc:
            return exc

    async def _again(self, slot: int, numbers: Sequence[int]) -> None:
        """Do by itself what of a slot was not done: nothing twice, and nothing behind which its key was written."""
        plans, is_behind = [self._plans[number] for number in numbers], False
        refused = _undone(plans, [self._answers[number] for number in numbers])
        for number, is_refused in zip(numbers, refused, strict=True):
            if self._answers[number] is _NOT_SENT and not is_refused:
                self._answers[number] = lost(ConnectionError("its answer was lost, and its key is written behind it"))
        reads = read_again(plans, refused)
        if any(is_refused_by_fence(self._answers[number]) for number in numbers):
            self._link.commands.forget()
        for number, plan, is_refused, may_read in zip(numbers, plans, refused, reads, strict=True):
            is_behind = is_behind or (is_refused and plan is not None and not plan.is_read)
            # A read may be behind a write that only comes now.
            if is_refused or (is_behind and may_read and self._each.refusal is None):
                self._answers[number] = await self._one(number, slot)


def _undone(plans: Sequence[Plan | None], answers: Sequence[Any]) -> list[bool]:
    written: set[str] = set()
    found = []
    for plan, each in zip(reversed(plans), reversed(answers), strict=True):
        keys = () if plan is None else plan.keys
        is_write = plan is not None and not plan.is_read
        may_be_done = each is _NOT_SENT or isinstance(each, ELSEWHERE) or (is_write and is_undone(each))
        may_be_done = may_be_done and (is_wrong(each) or written.isdisjoint(keys))
        if is_write and not may_be_done:
            written.update(keys)
        found.append(may_be_done)
    return found[::-1]


def _packed(words: Words) -> bytes:
    # Its stub means a tuple of any length.
    return pack_command(tuple(words))  # type: ignore[arg-type, no-any-return]
