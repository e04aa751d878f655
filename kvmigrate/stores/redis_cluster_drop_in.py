# This file is generated from redis_cluster_drop_in_async.py by tools/async_to_sync.py.
# Change that one instead.
"""A client of a cluster that writes mapped keys as one step with fence and marks, and is else as it was.

`MappedCluster` is the generated twin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

from redis import RedisCluster
from redis.client import EMPTY_RESPONSE
from redis.cluster import ClusterPipeline
from redis.exceptions import CrossSlotTransactionError, RedisError, WatchError

from kvmigrate.errors import AmbiguousWriteError, ConfigError, SourceError, StaleError
from kvmigrate.model import Fence
from kvmigrate.stores import redis_cluster_client as driver
from kvmigrate.stores.client_base import Commands
from kvmigrate.stores.client_errors import raise_as_client
from kvmigrate.stores.client_plan import Plan
from kvmigrate.stores.redis_client_calls import LISTING, Aborted
from kvmigrate.stores.redis_cluster_link import ClusterLink
from kvmigrate.stores.redis_cluster_pipeline import SlotPipeline
from kvmigrate.stores.redis_refusal import ELSEWHERE

C = TypeVar("C")

# Most of the driver's own classes has no types.
_Client: Any = RedisCluster
_Pipeline: Any = ClusterPipeline


class MappedCluster(_Client):  # type: ignore[misc]  # see above
    """Made by `mapped_cluster`, never by itself: each client has a class of its own, below the one that it had."""

    _kvmigrate: ClusterLink

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """As the client's own."""
        link = self._kvmigrate
        plan = link.commands.plan(args, link.calls.encoder)
        if plan is None:
            # On its way the driver may close the client and open it again: not what the link has open.
            answer = link.plain.execute_command(*args, **options)
            return answer if args[0] not in LISTING else link.without_own(args, answer)
        return link.done(plan, args, options)

    def pipeline(self, *args: Any, **options: Any) -> Any:
        """As the client's own."""
        return _fenced(self._kvmigrate.plain.pipeline(*args, **options), self._kvmigrate)

    def json(self, *args: Any, **options: Any) -> Any:
        """As the client's own."""
        return with_pipelines(super().json(*args, **options), _fenced, self._kvmigrate)

    def ts(self, *args: Any, **options: Any) -> Any:
        """As the client's own."""
        return with_pipelines(super().ts(*args, **options), _fenced, self._kvmigrate)

    def close(self, *args: Any, **options: Any) -> None:
        """As the client's own."""
        super().close(*args, **options)
        self._kvmigrate.calls.close()

    def __del__(self, *args: Any, **options: Any) -> None:
        """Leave the end to the client that it was made of, which shares all with it."""


class MappedClusterPipeline(_Pipeline):  # type: ignore[misc]  # see above
    """As `MappedCluster`, for its pipelines: divided by node, or a transaction in one slot, as the driver's."""

    _kvmigrate: ClusterLink

    def watch(self, *names: Any) -> Any:
        """As the pipeline's own."""
        link, args = self._kvmigrate, ("WATCH", *names)
        plan = link.commands.plan(args, link.calls.encoder)
        if plan is not None and link.commands.reads_tables(plan):
            return link.done(plan, args, {})
        return super().watch(*names)

    def execute(self, raise_on_error: bool = True, *args: Any) -> list[Any]:  # noqa: FBT001, FBT002 - as the driver has it
        """As the pipeline's own."""
        queue, link = driver.queue_of(self), self._kvmigrate
        try:
            plans = [link.commands.plan(each.args, link.calls.encoder, is_piped=True) for each in queue]
            mapped = [plan for plan in plans if plan is not None]
            is_transaction = driver.is_transaction(self)
            if is_transaction and mapped:
                link.commands.note_transaction(mapped)
            # What names several slots the driver refuses itself.
            is_plain = not mapped or (is_transaction and len(driver.slots_of(self)) > 1)
            if is_plain or (all(each.is_read for each in mapped) and not link.commands.reads_tables(mapped[0])):
                plain: list[Any] = super().execute(raise_on_error, *args)
                return plain
            if is_transaction:
                answers = self._mapped_transaction(queue, plans)
            else:
                answers = SlotPipeline(link, queue, plans).run()
        except Aborted as exc:
            driver.annotate(self, exc.error, exc.number, queue[exc.number - 1].args)
            raise exc.error from None
        except (SourceError, AmbiguousWriteError) as exc:
            raise_as_client(exc)
        finally:
            self.reset()
        if raise_on_error:
            self._raise_first(queue, answers)
        return answers

    def _given(self, own: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Do a command as *own*. A write while keys are watched goes on another connection, which they notice."""
        if driver.is_immediate(self):
            link = self._kvmigrate
            plan = link.commands.plan(args, link.calls.encoder)
            if plan is not None:
                return self._immediately(own, plan, args, options)
        return own(*args, **options)

    def _immediately(self, own: Callable[..., Any], plan: Plan, args: Sequence[Any], options: dict[str, Any]) -> Any:
        link, slots = self._kvmigrate, driver.slots_of(self)
        if plan.is_read and not link.commands.reads_tables(plan):
            return own(*args, **options)
        if slots and link.calls.slot(plan) not in slots:
            raise CrossSlotTransactionError("Cannot watch or send commands on different slots")
        return link.done(plan, args, options)

    def _mapped_transaction(self, queue: Sequence[driver.Queued], plans: Sequence[Plan | None]) -> list[Any]:
        link, mapped = self._kvmigrate, [plan for plan in plans if plan is not None]
        encode = link.calls.encoder.encode
        # As the driver does: what is wrong for want of arguments is not sent, and has its answer already.
        commands = [
            (args[0], *map(encode, args[1:])) if plan is None else plan.args
            for plan, (args, options) in zip(plans, queue, strict=True)
            if EMPTY_RESPONSE not in options
        ]
        connection = driver.watching(self)

        def send(_: Fence) -> Any:
            if connection is None:
                return link.calls.transacted(mapped, commands)
            try:
                answers = link.calls.at(driver.address_of(connection)).transact(connection, mapped, commands)
            except StaleError as exc:
                raise WatchError("the authority moved while keys were watched: begin anew") from exc
            except ELSEWHERE as exc:
                connection.disconnect()
                driver.watch_no_more(self)
                raise WatchError("Slot rebalancing occurred while watching keys") from exc
            except AmbiguousWriteError:
                connection.disconnect()
                driver.watch_no_more(self)
                raise
            driver.watch_no_more(self)
            return answers

        given = iter(link.commands.together(mapped, send))
        callbacks, answers = driver.callbacks_in_transactions(link.plain), []
        for args, options in queue:
            if EMPTY_RESPONSE in options:
                answers.append(options[EMPTY_RESPONSE])
                continue
            each = next(given)
            is_wrong = isinstance(each, Exception)
            answers.append(each if is_wrong else link.made_by(callbacks, each, args, options))
        return answers

    def _raise_first(self, queue: Sequence[driver.Queued], answers: Sequence[Any]) -> None:
        for number, (each, command) in enumerate(zip(answers, queue, strict=True), 1):
            if isinstance(each, RedisError) and not isinstance(each, AmbiguousWriteError):
                driver.annotate(self, each, number, command.args)
            if isinstance(each, Exception):
                raise each


def mapped_cluster(client: C, commands: Commands, *, scope: str) -> C:
    """Return a client that behaves as *client*, and fences what it does to mapped keys.

    Writes of mapped keys take connections of their own to each node, with the addresses, login and time-outs of
    *client*.

    Raises:
        ConfigError: it is a client that was returned here, or the driver is too old.
    """
    driver.check_driver()
    plain: Any = client
    if isinstance(plain, MappedCluster):
        raise ConfigError("this client is one that `redis` returned already", hint="pass the one that you opened")
    link = ClusterLink(plain, commands, scope)
    # A class of its own: what the client makes of its class is fenced, too.
    kind: Any = type(plain)
    below = _below(MappedCluster, kind)
    own = {"_kvmigrate": link, "__module__": below.__module__}
    # What is known of the nodes, and whether it is known, is the same for both.
    kind = type(below.__name__, (below,), {**driver.shared_slots(plain), **own})
    made: Any = kind.__new__(kind)
    made.__dict__ = plain.__dict__
    return made  # type: ignore[no-any-return]  # a subclass of the client's own class


def with_pipelines(module: Any, fenced: Callable[[Any, Any], Any], link: Any) -> Any:
    """Have the commands of a module of the server make pipelines that fence."""
    own = module.pipeline

    def pipeline(*args: Any, **options: Any) -> Any:
        """As the module's own."""
        return fenced(own(*args, **options), link)

    module.pipeline = pipeline
    return module


def _fenced(pipeline: Any, link: ClusterLink) -> Any:
    """Turn a pipeline of the client into one that fences."""
    kind: Any = type(pipeline)
    pipeline.__class__ = _below(MappedClusterPipeline, kind)
    pipeline._kvmigrate = link  # noqa: SLF001 - of its own class
    driver.go_through(pipeline, pipeline._given)  # noqa: SLF001 - as above
    return pipeline


@cache
def _below(mixin: Any, kind: Any) -> Any:
    bases = (mixin,) if issubclass(mixin, kind) else (mixin, kind)
    return type(kind.__name__, bases, {"__module__": kind.__module__})
