"""What clients of a cluster and their pipelines keep to themselves: read in one place, for both kinds of client."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import redis
import redis.asyncio.cluster
import redis.cluster
from redis.commands import READ_COMMANDS
from redis.exceptions import RedisClusterException

from kvmigrate.errors import ConfigError

_WITH_TRANSACTIONS = "7.0"


class Queued(NamedTuple):
    """One command of a pipeline."""

    args: Sequence[Any]
    options: dict[str, Any]


class _Both(Mapping[Any, Callable[..., Any]]):
    """What the client of a node makes of an answer, and what the client of the cluster makes of that."""

    def __init__(self, first: Mapping[Any, Any], then: Mapping[Any, Any]) -> None:
        self._first, self._then = first, then

    def __contains__(self, name: object) -> bool:
        return name in self._first or name in self._then

    def __getitem__(self, name: Any) -> Callable[..., Any]:
        def made(answer: Any, **options: Any) -> Any:
            """Apply both."""
            for callbacks in (self._first, self._then):
                if name in callbacks:
                    answer = callbacks[name](answer, **options)
            return answer

        return made

    def __iter__(self) -> Iterator[Any]:
        return iter({**self._first, **self._then})

    def __len__(self) -> int:
        return len({**self._first, **self._then})


def check_driver() -> None:
    """Raise `ConfigError` where the driver is too old: its pipelines know no transactions."""
    if not hasattr(redis.asyncio.cluster, "TransactionStrategy"):
        raise ConfigError(
            f"redis-py {redis.__version__} has no transactions of clusters",
            hint=f"install redis-py {_WITH_TRANSACTIONS} or later, or use `.store`",
        )


def shared_slots(client: Any) -> dict[str, property]:
    """Return for each attribute of a client that is not in its ``__dict__`` one that stands for it."""
    names = (name for kind in type(client).__mro__ for name in getattr(kind, "__slots__", ()))
    return {name: _shared(client, name) for name in names}


def _shared(client: Any, name: str) -> property:
    return property(lambda _: getattr(client, name), lambda _, value: setattr(client, name, value))


def slot_of(client: Any, args: Sequence[Any]) -> Any:
    """Return the slot of a command, or with an event loop what is to be awaited for it.

    Raises:
        RedisClusterException: it names no key, or keys of several slots.
    """
    own = getattr(client, "determine_slot", None)
    found = own(*args) if own is not None else client._determine_slot(*args)  # noqa: SLF001 - the driver has no other
    if found is None:
        raise RedisClusterException(f"{args[0]} names no key")
    return found


def callbacks_of(client: Any) -> Mapping[Any, Any]:
    """Return what makes the client's replies of the servers' answers."""
    then = getattr(client, "cluster_response_callbacks", None)
    if then is None:
        found: Mapping[Any, Any] = client.response_callbacks
        return found
    return _Both(client.get_redis_connection(client.get_default_node()).response_callbacks, then)


def callbacks_in_transactions(client: Any) -> Mapping[Any, Any]:
    """As `callbacks_of`, for what EXEC answers: without an event loop the driver has other ones there."""
    found: Mapping[Any, Any] = getattr(client, "cluster_response_callbacks", None) or client.response_callbacks
    return found


def queue_of(pipeline: Any) -> list[Queued]:
    """Return the commands of a pipeline."""
    commands = pipeline._execution_strategy._command_queue  # noqa: SLF001 - as above
    return [Queued(each.args, each.options if hasattr(each, "options") else each.kwargs) for each in commands]


def is_read(args: Sequence[Any]) -> bool:
    """Return whether the driver knows that a command only reads."""
    return args[0] in READ_COMMANDS


def is_transaction(pipeline: Any) -> bool:
    """Return whether a pipeline is one."""
    kinds = (redis.cluster.TransactionStrategy, redis.asyncio.cluster.TransactionStrategy)
    return isinstance(pipeline._execution_strategy, kinds)  # noqa: SLF001 - as above


def is_immediate(pipeline: Any) -> bool:
    """Return whether a pipeline watches keys, so that it sends at once what it is given."""
    strategy = pipeline._execution_strategy  # noqa: SLF001 - as above
    return is_transaction(pipeline) and strategy._watching and not strategy._explicit_transaction  # noqa: SLF001 - as above


def slots_of(pipeline: Any) -> set[int]:
    """Return the slots of a transaction's commands."""
    found: set[int] = pipeline._execution_strategy._pipeline_slots  # noqa: SLF001 - as above
    return found


def go_through(pipeline: Any, way: Callable[..., Any]) -> None:
    """Have *way* called with all that a pipeline is given, and before it with how it would have gone on.

    Some methods of a pipeline go past its `execute_command`: DEL, UNLINK and EXISTS without an event loop.
    """
    strategy = pipeline._execution_strategy  # noqa: SLF001 - as above
    strategy.execute_command = partial(way, strategy.execute_command)


def watching(pipeline: Any) -> Any:
    """Return the connection with what a transaction watches; ``None`` where it watches nothing."""
    strategy = pipeline._execution_strategy  # noqa: SLF001 - as above
    return strategy._transaction_connection if strategy._watching else None  # noqa: SLF001 - as above


def address_of(connection: Any) -> tuple[str, int]:
    """Return the node that a connection leads to."""
    return connection.host, int(connection.port)


def watch_no_more(pipeline: Any) -> None:
    """Note that EXEC was answered, which ends what is watched."""
    pipeline._execution_strategy._watching = False  # noqa: SLF001 - as above


def annotate(pipeline: Any, error: Exception, number: int, args: Sequence[Any]) -> None:
    """Say in an error which command of a pipeline it is of, in the driver's words."""
    strategy = pipeline._execution_strategy  # noqa: SLF001 - as above
    own = getattr(strategy, "annotate_exception", None) or strategy._annotate_exception  # noqa: SLF001 - as above
    if not hasattr(strategy, "annotate_exception") and not is_transaction(pipeline) and error.args:
        # There the driver tells all that the error has.
        error.args = (error.args, *error.args[1:])
    own(error, number, args)


def ready(client: Any) -> Any:
    """Return what is to be awaited before a client with an event loop knows its nodes; else nothing."""
    return client.initialize() if getattr(client, "_initialize", False) else None
