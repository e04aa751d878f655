"""What a write does when something fails or moves on its way, over memory where every fault can be had."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kvmigrate.dualwrite.companion import Companion
from kvmigrate.dualwrite.write import Patience
from kvmigrate.errors import (
    AmbiguousWriteError,
    DeadlineError,
    FenceError,
    FenceMissingError,
    SchemaError,
    SealedError,
    SourceError,
    StaleError,
    TargetError,
)
from kvmigrate.model import Authority, Fence, Logging, Stage
from kvmigrate.stores.fence_base import Swap
from kvmigrate.testing import MemoryMigration
from kvmigrate.testing.memory_store import SHARD

MAPPING = """
version: 1
name: shop
entities:
  client:
    keys: ["client:{id}"]
    table: clients
    columns:
      id: {key: id, type: text}
    primary_key: [id]
"""
SHORT = Patience(mirror_s=0.25, wait_s=0.4, tables_s=1.0)


@pytest.fixture
def shop() -> Iterator[MemoryMigration]:
    """A migration in stage dualwrite whose writes wait for a flip no longer than 0.4 s."""
    migration = MemoryMigration(MAPPING, Stage.DUALWRITE, SHORT)
    yield migration
    migration.store.close()


def failing(operations: dict[str, Exception]) -> Callable[..., None]:
    """Return what makes these operations fail."""

    def before(operation: str, *_: Any) -> None:
        if operation in operations:
            raise operations[operation]

    return before


def companion_of(shop: MemoryMigration) -> Companion:
    """Return the companion of this process, once it looked at fence and stage."""
    shop.store.get("client:0")
    companion = shop.store._by_process[os.getpid()].companion
    until = time.monotonic() + 20
    while companion._beaten is None and time.monotonic() < until:
        time.sleep(0.005)
    return companion


def put_fence(shop: MemoryMigration, fence: Fence) -> None:
    """Give the store another fence, whatever it had."""
    now = shop.memory.fences()[SHARD]
    assert now is not None
    swap = Swap(fence, clock_epoch=fence.epoch)
    assert 1 == shop.memory.swap([SHARD], epochs=[now.epoch], authorities=[now.authority], to=swap)


@pytest.mark.parametrize(
    "error", [TargetError("down"), DeadlineError("late"), RuntimeError("a bug")], ids=lambda error: type(error).__name__
)
def test_a_mirror_that_fails_leaves_a_mark(shop: MemoryMigration, error: Exception) -> None:
    """The write stands, the result says that the tables follow, and the mark is there for the relay."""
    shop.tables.before = failing({"mirror": error})
    result = shop.store.put("client:1", {"a": 1})

    assert not result.mirrored
    assert result.version is not None
    assert {"a": 1} == shop.store.get("client:1")
    assert ["client:1"] == [mark.key for mark in shop.memory.marked(SHARD, limit=9)]
    shop.tables.before = lambda _operation, _deadline_s: None
    assert [] == shop.settle()
    assert result.version == shop.tables.version("client:1")


def test_tables_that_fail_are_left_alone(shop: MemoryMigration) -> None:
    """After some failures in a row the breaker opens and no write asks them; later one does, and closes it."""
    asked = []

    def down(operation: str, _: float) -> None:
        if operation == "mirror":
            asked.append(operation)
            raise DeadlineError("late")

    shop.tables.before = down
    for n in range(50):
        shop.store.put(f"client:{n}", {})
    assert 5 == len(asked)

    shop.tables.before = lambda _operation, _deadline_s: None
    until = time.monotonic() + 10
    while not shop.store.put("client:1", {}).mirrored:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_mirror_gets_its_deadline(shop: MemoryMigration) -> None:
    """Never more than what the patience says, and less for the later ones of a put_many."""
    deadlines = []

    def slow(operation: str, deadline_s: float) -> None:
        if operation == "mirror":
            deadlines.append(deadline_s)
            time.sleep(0.1)

    shop.tables.before = slow
    results = shop.store.put_many({f"client:{n}": {} for n in range(6)})

    assert deadlines == sorted(deadlines, reverse=True)
    assert 0.25 >= deadlines[0] > deadlines[-1] > 0
    assert [True] * len(deadlines) + [False] * (6 - len(deadlines)) == [each.mirrored for each in results.values()]
    assert len(deadlines) < 6


def test_a_seal_is_waited_for(shop: MemoryMigration) -> None:
    """A write that meets a seal goes on as soon as the flip is over, to whoever is open then."""
    shop.store._patience = SHORT._replace(wait_s=20)
    shop.store.put("client:1", {"n": 0})
    put_fence(shop, Fence(2, Authority.SEALED))

    def open_tables() -> None:
        time.sleep(0.1)
        shop.tables.change({"epoch": 2, "authority": Authority.TABLES, "stage": Stage.RAMPDOWN})
        put_fence(shop, Fence(2, Authority.TABLES))

    thread = threading.Thread(target=open_tables)
    thread.start()
    result = shop.store.put("client:1", {"n": 1})
    thread.join()

    assert result.version is not None
    assert 2 == result.version.epoch
    [item] = shop.tables.get(["client:1"], 1)
    assert item is not None
    assert b'{"n":1}' == item.value


def test_a_seal_that_stays_is_told(shop: MemoryMigration) -> None:
    """After the patience the write is refused, with what to do next; nothing was written."""
    shop.store.put("client:1", {"n": 0})
    put_fence(shop, Fence(2, Authority.SEALED))

    with pytest.raises(SealedError) as caught:
        shop.store.put("client:1", {"n": 1})
    assert "kvmigrate" in caught.value.hint
    assert "client:1" == caught.value.key
    assert {"n": 0} == shop.store.get("client:1")


@pytest.mark.parametrize("phase", ["", "first load", "first load, keys", "to rampdown at 0"])
def test_a_seal_of_nobody_is_opened(phase: str) -> None:
    """A process that ended between creating a fence and opening it leaves a seal that the next write opens."""
    shop = MemoryMigration(MAPPING, Stage.DUALWRITE)
    shop.tables.change({"phase": phase})
    put_fence(shop, Fence(1, Authority.SEALED, Logging.MIRROR))

    assert shop.store.put("client:1", {"n": 1}).mirrored
    assert Authority.STORE is shop.memory.fences()[SHARD].authority  # type: ignore[union-attr]  # it has one
    shop.store.close()


@pytest.mark.parametrize(
    "changes",
    [{"phase": "to rampdown at 1"}, {"phase": "to rampdown at 1 owing"}, {"phase": "?"}, {"epoch": 0}],
    ids=["intent", "intent that owes", "unknown", "a flip's epoch"],
)
def test_a_seal_of_a_flip_is_left_alone(changes: dict[str, Any]) -> None:
    """Where the control row has an intent, or stands below the seal, only the controller may open."""
    shop = MemoryMigration(MAPPING, Stage.DUALWRITE, Patience(wait_s=1.5))
    put_fence(shop, Fence(1, Authority.SEALED, Logging.MIRROR))
    shop.tables.change(changes)

    with pytest.raises(SealedError):
        shop.store.put("client:1", {})
    assert Fence(1, Authority.SEALED, Logging.MIRROR) == shop.memory.fences()[SHARD]
    shop.store.close()


def test_a_write_that_the_tables_overtook_is_not_acknowledged(shop: MemoryMigration) -> None:
    """The store accepted it at an epoch that was over: it is written again where it counts."""
    shop.tables.change({"epoch": 2, "authority": Authority.TABLES, "stage": Stage.RAMPDOWN})
    moved = threading.Timer(0.1, put_fence, [shop, Fence(2, Authority.TABLES)])
    moved.start()
    result = shop.store.put("client:1", {"n": 1})
    moved.join()

    assert result.version is not None
    assert 2 == result.version.epoch
    assert result.version == shop.tables.version("client:1")


def test_an_overtaken_write_that_arrived_is_not_repeated(shop: MemoryMigration) -> None:
    """The applier brought it into the tables before they opened: writing it once more would undo later writes."""

    def flip_first(operation: str, _: float) -> None:
        if operation == "mirror":
            shop.tables.before = lambda _operation, _deadline_s: None
            shop.move(Stage.RAMPDOWN)

    shop.tables.before = flip_first
    result = shop.store.update("client:1", lambda _: {"n": 1})

    assert result.mirrored
    assert result.version is not None
    assert 1 == result.version.epoch
    assert result.version == shop.tables.version("client:1")


def test_an_overtaken_update_is_not_counted_twice(shop: MemoryMigration) -> None:
    """Where it cannot be known whether it counted, the caller is told so."""
    shop.store.put("client:1", {"n": 1})

    def overtake(operation: str, _: float) -> None:
        if operation == "mirror":
            shop.tables.before = lambda _operation, _deadline_s: None
            shop.move(Stage.RAMPDOWN)
            shop.tables.put(None, "client:1", epoch=2, deadline_s=1)

    shop.tables.before = overtake
    with pytest.raises(AmbiguousWriteError, match="others wrote the key"):
        shop.store.update("client:1", lambda value: {"n": value["n"] + 1})


def test_an_overtaken_write_that_still_stands_is_not_repeated(shop: MemoryMigration) -> None:
    """A new epoch of the same store has it with its mark: it is accepted, and the relay brings it over."""
    calls: list[Any] = []

    def next_epoch(operation: str, _: float) -> None:
        if operation == "mirror":
            shop.tables.before = lambda _operation, _deadline_s: None
            shop.tables.change({"epoch": 2})
            put_fence(shop, Fence(2, Authority.STORE, Logging.MIRROR))

    shop.tables.before = next_epoch

    def change(value: Any) -> Any:
        calls.append(value)
        return {"n": 1}

    result = shop.store.update("client:1", change)

    assert [None] == calls
    assert not result.mirrored
    assert ["client:1"] == [mark.key for mark in shop.memory.marked(SHARD, limit=9)]


def test_an_isolated_store_is_not_believed(shop: MemoryMigration) -> None:
    """A store whose fence never follows the control row accepted what may be lost: the caller is told."""
    shop.tables.change({"epoch": 2})

    with pytest.raises(AmbiguousWriteError) as caught:
        shop.store.put("client:1", {})
    assert caught.value.hint


def test_a_refusal_that_nobody_can_explain_is_not_acknowledged(shop: MemoryMigration) -> None:
    """The tables refuse by their fence, and then do not answer: the write may be lost, and the caller is told."""
    fence_error = FenceError("another epoch")
    shop.tables.before = failing({"mirror": fence_error, "control": TargetError("down")})

    with pytest.raises(AmbiguousWriteError):
        shop.store.put("client:1", {})


def test_a_control_row_that_was_set_back_costs_no_write(shop: MemoryMigration) -> None:
    """The tables are behind: for the controller to settle, and the mark stays."""
    shop.tables.change({"epoch": 0})

    assert not shop.store.put("client:1", {}).mirrored
    assert 1 == shop.memory.marks()


def test_a_lost_answer_is_told_and_not_repeated(shop: MemoryMigration) -> None:
    """A put whose answer never came is one put, and the caller knows that it may have happened."""
    puts = []

    def lost(operation: str) -> None:
        if operation == "put":
            puts.append(operation)
            raise AmbiguousWriteError("the connection was lost")

    shop.memory.before = lost
    with pytest.raises(AmbiguousWriteError):
        shop.store.put("client:1", {})
    with pytest.raises(AmbiguousWriteError):
        shop.store.update("client:1", lambda _: {})
    assert 2 == len(puts)


def test_a_refusal_that_took_all_the_time_is_not_the_last_word(shop: MemoryMigration) -> None:
    """A server that fails over answers late, and by another fence than this process knew: it is asked once more."""
    asked: list[float] = []

    def late_and_stale(operation: str) -> None:
        if operation == "put":
            asked.append(time.monotonic())
            if len(asked) == 1:
                time.sleep(SHORT.wait_s + 0.05)
                raise StaleError("moved", epoch=2, authority=Authority.STORE)

    shop.memory.before = late_and_stale

    assert shop.store.put("client:1", {}).version is not None
    assert 2 == len(asked)


def test_a_store_that_is_down_is_told(shop: MemoryMigration) -> None:
    """While the store is the authority, nothing else takes its place."""
    shop.memory.before = failing(dict.fromkeys(["fences", "put", "get"], SourceError("down")))

    with pytest.raises(SourceError):
        shop.store.put("client:1", {})
    with pytest.raises(SourceError):
        shop.store.get("client:1")


@pytest.mark.parametrize("stage", [Stage.RAMPDOWN, Stage.COMPLETE])
def test_open_tables_do_not_need_the_store(shop: MemoryMigration, stage: Stage) -> None:
    """With the store down, writes and reads go on; what the store did not get, it is owed."""
    shop.move(stage)
    shop.memory.before = failing(dict.fromkeys(["fences", "reverse", "get"], SourceError("down")))

    assert not shop.store.put("client:1", {"n": 1}).mirrored
    assert {"n": 1} == shop.store.get("client:1")
    assert ["client:1"] == shop.tables.owed_keys()


def test_tables_on_their_way_back_are_read(shop: MemoryMigration) -> None:
    """While the authority returns to the store, writes wait, and reads see the newest accepted write."""
    shop.move(Stage.RAMPDOWN)
    shop.memory.before = failing({"reverse": SourceError("down")})
    shop.store.put("client:1", {"n": 1})
    shop.tables.change({"epoch": 3, "authority": Authority.SEALED})
    shop.store._by_process[os.getpid()].view.forget()

    assert {"n": 1} == shop.store.get("client:1")
    with pytest.raises(SealedError):
        shop.store.put("client:1", {"n": 2})


def test_a_lost_fence_comes_back_closed_first(shop: MemoryMigration) -> None:
    """Sealed when it is made, opened after another look at the control row, and everything is owed."""
    seen = []

    def watch(operation: str) -> None:
        if operation == "swap":
            seen.append(shop.memory._fence)

    shop.memory.lose_all()
    shop.memory.before = watch
    assert shop.store.put("client:1", {}).mirrored

    assert [Fence(2, Authority.SEALED, Logging.MIRROR, owes_all=True)] == seen
    control = shop.tables.control()
    assert control is not None
    assert control.owes_all
    assert 2 == control.epoch


def test_many_writers_make_one_fence(shop: MemoryMigration) -> None:
    """Sixteen threads that meet a missing fence all write, at the epoch of the control row."""
    shop.memory.lose_all()
    with ThreadPoolExecutor(16) as pool:
        versions = list(pool.map(lambda n: shop.store.put(f"client:{n}", {}).version, range(64)))

    control, fence = shop.tables.control(), shop.memory.fences()[SHARD]
    assert control is not None
    assert fence is not None
    assert control.epoch >= fence.epoch
    assert {True} == {version is not None and version.epoch <= fence.epoch for version in versions}
    assert Authority.STORE is fence.authority


def test_a_fence_lost_while_the_tables_are_open_stays_lost(shop: MemoryMigration) -> None:
    """Nobody but the controller gives it back; writes of this process go on to the tables or are refused."""
    shop.move(Stage.RAMPDOWN)
    shop.memory.lose_all()

    with pytest.raises(FenceMissingError, match="tables are the authority"):
        shop.store.put("client:1", {})
    assert shop.memory.fences()[SHARD] is None


def test_a_flip_begun_meanwhile_keeps_a_new_fence_sealed(shop: MemoryMigration) -> None:
    """An intent that appears between making a fence and opening it: it stays sealed for the controller."""

    def intend(operation: str) -> None:
        if operation == "create":
            shop.tables.change({"phase": "flip"})

    shop.memory.lose_all()
    shop.memory.before = intend
    with pytest.raises(SealedError):
        shop.store.put("client:1", {})
    fence = shop.memory.fences()[SHARD]
    assert fence is not None
    assert Authority.SEALED is fence.authority


def test_a_shard_that_the_way_back_opened_takes_writes(shop: MemoryMigration) -> None:
    """Also before the control row says so: with many shards that is seconds later. The mark brings it to the tables."""
    shop.move(Stage.RAMPDOWN)
    shop.move(Stage.LIVE)
    control = shop.tables.control()
    assert control is not None
    shop.tables.change({"authority": Authority.SEALED, "stage": Stage.RAMPDOWN, "phase": f"to live at {control.epoch}"})

    begun = time.monotonic()
    result = shop.store.put("client:1", {"n": 1})

    assert (False, control.epoch) == (result.mirrored, result.version and result.version.epoch)
    assert time.monotonic() - begun < 0.3
    assert ["client:1"] == [mark.key for mark in shop.memory.marked(SHARD, limit=9)]


def test_a_sealed_store_asks_lost_tables_seldom() -> None:
    """Each try may take seconds, and the writer waits for none of them behind its own patience."""
    shop = MemoryMigration(MAPPING, Stage.DUALWRITE, SHORT._replace(wait_s=1.5))
    asked: list[str] = []

    def before(operation: str, *_: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            asked.append(operation)
            raise TargetError("down")

    shop.memory.swap([SHARD], epochs=[1], authorities=[Authority.STORE], to=Swap(Fence(1, Authority.SEALED)))
    shop.tables.before = before

    with pytest.raises(SealedError):
        shop.store.put("client:1", {})

    shop.store.close()
    assert {"control"} == set(asked)
    assert len(asked) <= 3


def test_without_fence_and_tables_a_write_passes_unmarked(shop: MemoryMigration) -> None:
    """Only where this process was heard of lately, and never knew that the authority may move."""
    companion = companion_of(shop)
    shop.memory.lose_all()
    shop.tables.before = failing(dict.fromkeys(["control", "begin_epoch", "mirror", "beat"], TargetError("down")))

    result = shop.store.put("client:1", {"n": 1})
    assert (False, None) == result
    assert {"n": 1} == shop.store.get("client:1")
    assert 0 == shop.memory.marks()
    assert shop.memory.fences()[SHARD] is None
    shop.store.delete("client:1")
    assert shop.store.get("client:1") is None
    with pytest.raises(FenceMissingError):
        shop.store.update("client:1", lambda _: {"n": 1})

    companion.live_seen = True
    with pytest.raises(FenceMissingError):
        shop.store.put("client:1", {"n": 2})


def test_a_process_that_was_not_heard_of_lately_waits_for_the_tables(shop: MemoryMigration) -> None:
    """Its row may be too old to be waited for, so that the authority may have moved without it."""
    companion = companion_of(shop)
    beaten = companion._beaten
    assert beaten is not None
    shop.memory.lose_all()
    shop.tables.before = failing(dict.fromkeys(["control", "begin_epoch", "beat"], TargetError("down")))

    for before in [(beaten[0] - 3600, beaten[1]), (beaten[0], beaten[1] - 3600), (beaten[0], beaten[1] + 60), None]:
        companion._beaten = before
        with pytest.raises(FenceMissingError):
            shop.store.put("client:1", {})
    companion._beaten = beaten
    assert shop.store.put("client:1", {}).version is None


def test_a_database_without_the_control_schema_is_no_reason_to_pass(shop: MemoryMigration) -> None:
    """It answers, so it is not out of reach: nothing is written past the fence."""
    companion_of(shop)
    shop.memory.lose_all()
    shop.tables.before = failing({"begin_epoch": SchemaError("no schema kvmigrate")})

    with pytest.raises(FenceMissingError):
        shop.store.put("client:1", {})


def test_the_row_of_the_process_says_what_it_saw(shop: MemoryMigration) -> None:
    """Before the row says that it knows of live, the process does; a closed one takes its row away."""
    companion = companion_of(shop)
    assert shop.tables.alive is not None
    assert (1, Stage.DUALWRITE, False) == shop.tables.alive
    known = []
    shop.tables.before = lambda operation, _: known.append(companion.live_seen) if operation == "beat" else None
    shop.move(Stage.LIVE)
    companion._beat()

    assert [True] == known
    assert (Stage.LIVE, True) == shop.tables.alive[1:]
    shop.store.close()
    assert shop.tables.alive is None


def test_a_reader_hears_of_a_flip(shop: MemoryMigration) -> None:
    """A process that only reads follows the authority, as its companion looks at the fence."""
    shop.store.put("client:1", {"n": 1})
    shop.move(Stage.COMPLETE)
    shop.tables.put(None, "client:1", epoch=2, deadline_s=1)

    until = time.monotonic() + 10
    while shop.store.get("client:1") is not None:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_acks_that_fail_are_dropped_and_counted(shop: MemoryMigration) -> None:
    """The marks stay for the relay; the caller never hears of it."""
    companion = companion_of(shop)
    shop.memory.before = failing({"ack": SourceError("down")})
    assert shop.store.put("client:1", {}).mirrored

    assert companion.flush()
    assert 1 == companion.dropped
    assert 1 == shop.memory.marks()


def test_a_counter_is_exact_among_threads(shop: MemoryMigration) -> None:
    """Sixteen threads of one store add up, and each sees its own last write."""
    store = shop.store
    store.put("client:n", {"n": 0})

    def add(_: int) -> bool:
        result = store.update("client:n", lambda value: {"n": value["n"] + 1})
        return store.last_write() is result

    with ThreadPoolExecutor(16) as pool:
        assert {True} == set(pool.map(add, range(320)))
    assert {"n": 320} == store.get("client:n")
    assert store._by_process[os.getpid()].companion.flush()
    assert 0 == shop.memory.marks()


def test_writers_and_flips_at_once_lose_nothing() -> None:
    """Eight threads over two stores write while the authority goes there and back: each sees what it wrote last."""
    shop = MemoryMigration(MAPPING, Stage.LIVE)
    other = MemoryMigration(MAPPING, Stage.LIVE)
    other.memory, other.tables = shop.memory, shop.tables
    done = threading.Event()

    def write(number: int) -> int:
        store, n = (shop, other)[number % 2].store, 0
        while not done.is_set() or not n:
            n += 1
            store.put(f"client:{number}", {"n": n})
        return n

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(write, number) for number in range(8)]
        for stage in [Stage.RAMPDOWN, Stage.LIVE, Stage.RAMPDOWN, Stage.COMPLETE, Stage.RAMPDOWN, Stage.LIVE]:
            time.sleep(0.05)
            shop.move(stage)
        done.set()
        last = [each.result() for each in running]

    assert [] == shop.settle()
    for number, n in enumerate(last):
        assert {"n": n} == shop.store.get(f"client:{number}")
        [item] = shop.tables.get([f"client:{number}"], 1)
        assert item is not None
        assert b'{"n":%d}' % n == item.value
    shop.store.close()
    other.store.close()


def test_a_forked_child_has_connections_and_a_companion_of_its_own(shop: MemoryMigration) -> None:
    """What the parent opened is not used, not closed and not waited for in the child."""
    shop.store.put("client:1", {"n": 1})
    parent = shop.store._by_process[os.getpid()]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            result = shop.store.put("client:1", {"n": 2})
            own = shop.store._by_process[os.getpid()]
            fine = result.mirrored and own is not parent and own.companion is not parent.companion
            fine = fine and own.companion.flush() and shop.memory.marks() == 0
            os.write(writing, b"fine" if fine else b"wrong")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert b"fine" == os.read(reading, 9)
    os.close(reading)
    os.close(writing)
    assert {"n": 1} == shop.store.get("client:1")


def _put(shop: MemoryMigration) -> bool:
    return shop.store.put("client:1", {}).mirrored


def test_a_pool_of_processes_writes() -> None:
    """Workers that are forked by a library write through the store that they inherit."""
    shop = MemoryMigration(MAPPING, Stage.DUALWRITE)
    with multiprocessing.get_context("fork").Pool(2, initializer=_inherit, initargs=(shop,)) as pool:
        assert [True] * 8 == pool.map(_put_inherited, range(8))


_INHERITED: list[MemoryMigration] = []


def _inherit(shop: MemoryMigration) -> None:
    _INHERITED[:] = [shop]


def _put_inherited(_: int) -> bool:
    return _put(_INHERITED[0])
