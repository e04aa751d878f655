"""One contract for every store that is written while it is migrated: fence, clock, marks, writes, both ways."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from kvmigrate.errors import ConfigError, FenceMissingError, SealedError, SourceError, StaleError
from kvmigrate.model import ADDRESS_SEPARATOR, Authority, Fence, Item, ItemKind, Logging, MarkedKey, Version
from kvmigrate.stores.fence_base import KeyPage, Swap
from tests.fenced_stand import ODD_KEYS, OPEN, WALKED_KEYS, Stand, text_item

ODD_VALUES = [b"", b"\0", b"\xff\xfe\r\n", b"$-1\r\n", bytes(range(256)), b"x" * 100_000]
FIELD = f"basket:1{ADDRESS_SEPARATOR}apple"
SEALED = Fence(2, Authority.SEALED, Logging.MIRROR)
TABLES = Fence(2, Authority.TABLES)


@pytest.fixture
def on_tables(begun: Stand) -> Stand:
    """A store whose tables are open at epoch 2."""
    assert begun.go(SEALED)
    assert begun.go(TABLES, epochs=[2], authorities=[Authority.SEALED], clear_marks=True)
    return begun


def now_ms() -> int:
    """Return the time; store and test run on one machine."""
    return time.time_ns() // 1_000_000


def test_a_new_store_has_no_fence(stand: Stand) -> None:
    """Nothing is a default: writes, observations and touches are refused, and nothing is left behind."""
    shard = stand.shard("a")

    assert dict.fromkeys(stand.store.shards()) == dict(stand.store.fences())
    assert {} == stand.store.clocks()
    assert stand.writer.fence("a") is None
    for call in (
        lambda: stand.writer.put(text_item("a"), epoch=1),
        lambda: stand.writer.delete("a", epoch=1),
        lambda: stand.writer.put_many([text_item("a")], epoch=1),
        lambda: stand.writer.observe(["a"]),
        lambda: stand.store.observe(shard, ["a"]),
        lambda: stand.store.touch(shard, ["a"], epoch=1),
        lambda: stand.store.reverse(shard, "a", Version(1, 1), None),
    ):
        with pytest.raises(FenceMissingError):
            call()
    assert 0 == stand.go(SEALED)
    assert stand.writer.get("a") is None
    assert 0 == stand.store.marks()


def test_a_fence_is_created_once(stand: Stand) -> None:
    """The second creation changes nothing."""
    stand.begin(Fence(3, Authority.SEALED, Logging.MIRROR, "life", owes_all=True))

    assert 0 == stand.store.create(stand.store.shards(), OPEN)

    assert {Fence(3, Authority.SEALED, Logging.MIRROR, "life", owes_all=True)} == set(stand.store.fences().values())
    assert Fence(3, Authority.SEALED, Logging.MIRROR, "life", owes_all=True) == stand.writer.fence("a")
    assert {3} == {clock.epoch for clock in stand.store.clocks().values()}
    assert all(clock.n > 0 for clock in stand.store.clocks().values())


def test_a_write_is_stored_versioned_and_marked(begun: Stand) -> None:
    """Value, clock and mark move in one step; what the caller is told is what stands there."""
    shard = begun.shard("a")
    before = begun.store.clocks()[shard]

    put = begun.writer.put(text_item("a", b'{"x": 1}'), epoch=1)

    assert (Logging.MIRROR, None) == (put.log, put.expires_at_ms)
    assert before < put.version
    seen = begun.seen("a")
    assert (OPEN, put.version) == (seen.fence, seen.version)
    assert ((text_item("a", b'{"x": 1}'),), (put.version.n,)) == (seen.items, seen.marks)
    assert [MarkedKey("a", put.version.n)] == list(begun.store.marked(shard, limit=10))
    assert begun.store.clocks()[shard] == put.version
    assert text_item("a", b'{"x": 1}') == begun.writer.get("a")


def test_n_grows_with_every_write(begun: Stand) -> None:
    """However fast the writes follow each other, no two have one n."""
    versions = [begun.writer.put(text_item("a", b"%d" % n), epoch=1).version for n in range(200)]

    assert sorted(set(versions)) == versions
    assert versions[-1].n == begun.mark("a")


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys_come_back(begun: Stand, key: str) -> None:
    """Any key that an item can have is written, marked, observed and acknowledged."""
    put = begun.writer.put(text_item(key, b"v"), epoch=1)

    assert text_item(key, b"v") == begun.item(key)
    assert [MarkedKey(key, put.version.n)] == list(begun.store.marked(begun.shard(key), limit=2))
    assert 1 == begun.store.ack(begun.shard(key), [MarkedKey(key, put.version.n)])
    assert 0 == begun.store.marks()


@pytest.mark.parametrize("value", ODD_VALUES, ids=range(len(ODD_VALUES)))
def test_odd_values_come_back(begun: Stand, value: bytes) -> None:
    """Bytes are bytes, whatever a client decodes."""
    begun.writer.put(text_item("a", value), epoch=1)
    begun.writer.put(Item("h", {value: value, b"f": b"1"}, ItemKind.HASH), epoch=1)

    assert text_item("a", value) == begun.item("a") == begun.writer.get("a")
    assert Item("h", {value: value, b"f": b"1"}, ItemKind.HASH) == begun.item("h") == begun.writer.get("h")


def test_without_log_nothing_is_counted(stand: Stand) -> None:
    """Stage off: the write is fenced all the same, but there is no version, no mark, and the clock stands still."""
    stand.begin(Fence(1, Authority.STORE, Logging.NONE))
    clocks = stand.store.clocks()

    puts = [
        stand.writer.put(text_item("a"), epoch=1),
        stand.writer.create(text_item("b"), epoch=1),
        stand.writer.delete("b", epoch=1),
        *stand.writer.put_many([text_item("c"), text_item("d")], epoch=1),
    ]

    assert [(None, Logging.NONE, None)] * 5 == puts
    assert clocks == stand.store.clocks()
    assert 0 == stand.store.marks()
    assert text_item("a") == stand.writer.get("a")
    with pytest.raises(StaleError):
        stand.writer.put(text_item("a"), epoch=2)


def test_mark_only_tells_so(stand: Stand) -> None:
    """While a first load runs there is a mark, and nobody is to mirror."""
    stand.begin(Fence(1, Authority.STORE, Logging.MARK_ONLY))

    put = stand.writer.put(text_item("a"), epoch=1)

    assert Logging.MARK_ONLY == put.log
    assert put.version.n == stand.mark("a")


@pytest.mark.parametrize("authority", [Authority.SEALED, Authority.TABLES, Authority.RETIRED])
@pytest.mark.parametrize("kind", ["authority", "epoch"])
def test_a_refused_write_leaves_nothing(begun: Stand, authority: Authority, kind: str) -> None:
    """Another epoch or authority: the error names what was found; value, mark and clock are as before."""
    begun.writer.put(text_item("a", b"old"), epoch=1)
    assert begun.go(Fence(2, authority if kind == "authority" else Authority.STORE, Logging.MIRROR))
    before = begun.seen("a")
    epoch = 2 if kind == "authority" else 1
    is_sealed = kind == "authority" and authority is Authority.SEALED

    for call in (
        lambda: begun.writer.put(text_item("a"), epoch=epoch),
        lambda: begun.writer.put(text_item("a"), epoch=epoch, ttl_ms=1000, expect=text_item("a", b"old")),
        lambda: begun.writer.create(text_item("b"), epoch=epoch),
        lambda: begun.writer.delete("a", epoch=epoch),
        lambda: begun.writer.put_many([text_item("a"), text_item("b")], epoch=epoch),
        lambda: begun.store.touch(begun.shard("a"), ["a"], epoch=epoch),
    ):
        with pytest.raises(SealedError if is_sealed else StaleError) as caught:
            call()
        assert (2, before.fence.authority) == (caught.value.epoch, caught.value.authority)
        assert is_sealed == isinstance(caught.value, SealedError)

    assert before == begun.seen("a")
    assert begun.item("b") is None


def test_a_time_to_live_is_by_the_clock_of_the_store(begun: Stand) -> None:
    """The writer is told the absolute expiry, and the observation has the same."""
    before = now_ms()

    put = begun.writer.put(text_item("a"), epoch=1, ttl_ms=60_000)

    assert before + 60_000 <= put.expires_at_ms <= now_ms() + 60_000
    assert text_item("a", b"1", put.expires_at_ms) == begun.item("a") == begun.writer.get("a")


def test_an_expiry_is_replaced_kept_or_ended(begun: Stand) -> None:
    """A write without one ends it, as SET does; keep_ttl leaves it; an item's own is absolute."""
    moment = now_ms() + 100_000

    for kind, value in ((ItemKind.JSON, b"1"), (ItemKind.HASH, {b"f": b"1"})):
        item = Item("a", value, kind)
        assert moment == begun.writer.put(item._replace(expires_at_ms=moment), epoch=1).expires_at_ms
        assert item._replace(expires_at_ms=moment) == begun.item("a")
        assert moment == begun.writer.put(item, epoch=1, keep_ttl=True).expires_at_ms
        assert item._replace(expires_at_ms=moment) == begun.item("a")
        assert begun.writer.put(item, epoch=1).expires_at_ms is None
        assert item == begun.item("a")
        assert begun.writer.put(item, epoch=1, keep_ttl=True).expires_at_ms is None


def test_an_expiry_in_the_past_is_the_end(begun: Stand) -> None:
    """The write is accepted and marked, and nothing stands there."""
    put = begun.writer.put(text_item("a", b"1", now_ms() - 1000), epoch=1)

    assert begun.item("a") is None
    assert put.version.n == begun.mark("a")


@pytest.mark.parametrize("ttl_ms", [0, -1])
def test_no_time_to_live_is_refused(begun: Stand, ttl_ms: int) -> None:
    """It would be a deletion in disguise."""
    with pytest.raises(SourceError):
        begun.writer.put(text_item("a"), epoch=1, ttl_ms=ttl_ms)
    assert 0 == begun.store.marks()


@pytest.mark.parametrize(
    ("there", "expect", "met"),
    [
        (text_item("a", b"x"), text_item("a", b"x"), True),
        (text_item("a", b"x"), text_item("a", b"x", 1), True),
        (text_item("a", b"x"), text_item("a", b"y"), False),
        (None, text_item("a", b"x"), False),
        (Item("a", {b"f": b"1"}, ItemKind.HASH), text_item("a", b"x"), False),
        (text_item("a", b"x"), Item("a", {b"f": b"1"}, ItemKind.HASH), False),
        (Item("a", {b"f": b"1", b"g": b"2"}, ItemKind.HASH), Item("a", {b"g": b"2", b"f": b"1"}, ItemKind.HASH), True),
        (Item("a", {b"f": b"1", b"g": b"2"}, ItemKind.HASH), Item("a", {b"f": b"1"}, ItemKind.HASH), False),
        (Item("a", {b"f": b"1"}, ItemKind.HASH), Item("a", {b"f": b"2"}, ItemKind.HASH), False),
        (text_item(FIELD, b"x"), text_item(FIELD, b"x"), True),
        (text_item(FIELD, b"x"), text_item(FIELD, b"y"), False),
        (None, text_item(FIELD, b"x"), False),
    ],
)
@pytest.mark.parametrize("way", ["put", "delete"])
def test_a_write_may_expect_a_value(begun: Stand, there: Item | None, expect: Item, *, met: bool, way: str) -> None:
    """It is compared in the step that writes; where it is not met, nothing happens."""
    if there is not None:
        begun.writer.put(there, epoch=1)
    before = begun.seen(expect.key)

    if way == "put":
        done = begun.writer.put(text_item(expect.key, b"new"), epoch=1, expect=expect)
    else:
        done = begun.writer.delete(expect.key, epoch=1, expect=expect)

    if met:
        assert (text_item(expect.key, b"new") if way == "put" else None) == begun.item(expect.key)
        assert done.version.n == begun.mark(expect.key)
    else:
        assert done is None
        assert before == begun.seen(expect.key)


@pytest.mark.parametrize("key", ["a", FIELD])
def test_create_is_for_what_is_not_there(begun: Stand, key: str) -> None:
    """The first one writes, the second finds something."""
    assert begun.writer.create(text_item(key, b"one"), epoch=1).version.n == begun.mark(key)
    before = begun.seen(key)

    assert begun.writer.create(text_item(key, b"two"), epoch=1) is None

    assert before == begun.seen(key)
    begun.writer.delete(key, epoch=1)
    assert begun.writer.create(text_item(key, b"three"), epoch=1) is not None
    assert text_item(key, b"three") == begun.item(key)


@pytest.mark.parametrize("key", ["a", FIELD])
def test_a_deletion_is_a_write(begun: Stand, key: str) -> None:
    """It has a version and a mark, whether there was anything or not."""
    first = begun.writer.delete(key, epoch=1)
    begun.writer.put(text_item(key), epoch=1)
    second = begun.writer.delete(key, epoch=1)

    assert first.version < second.version
    assert begun.item(key) is None
    assert second.version.n == begun.mark(key)


def test_fields_of_a_hash_are_items(begun: Stand) -> None:
    """Each has a mark of its own; its expiry is the hash's, which no field changes."""
    moment = now_ms() + 100_000
    begun.writer.put(Item("basket:1", {b"pear": b"2"}, ItemKind.HASH, moment), epoch=1)

    put = begun.writer.put(text_item(FIELD, b"3"), epoch=1)

    assert moment == put.expires_at_ms
    assert text_item(FIELD, b"3", moment) == begun.item(FIELD) == begun.writer.get(FIELD)
    assert Item("basket:1", {b"apple": b"3", b"pear": b"2"}, ItemKind.HASH, moment) == begun.item("basket:1")
    assert put.version.n == begun.mark(FIELD) != begun.mark("basket:1")
    with pytest.raises(SourceError):
        begun.writer.put(text_item(FIELD), epoch=1, ttl_ms=1000)
    begun.writer.delete(FIELD, epoch=1)
    assert begun.item(FIELD) is None
    assert Item("basket:1", {b"pear": b"2"}, ItemKind.HASH, moment) == begun.item("basket:1")


def test_a_field_of_what_is_no_hash_is_not_there(begun: Stand) -> None:
    """Reading says so, and writing is refused."""
    begun.writer.put(text_item("basket:1"), epoch=1)

    assert begun.item(FIELD) is None
    with pytest.raises(SourceError):
        begun.writer.put(text_item(FIELD), epoch=1)
    assert text_item("basket:1") == begun.item("basket:1")


def test_a_large_hash_is_written_whole(begun: Stand) -> None:
    """Fields that it had before are gone."""
    begun.writer.put(Item("a", {b"old": b"1"}, ItemKind.HASH), epoch=1)
    fields = {b"f%d" % n: b"%d" % n for n in range(5000)}

    begun.writer.put(Item("a", fields, ItemKind.HASH), epoch=1)

    assert Item("a", fields, ItemKind.HASH) == begun.item("a")


@pytest.mark.parametrize("kind", [ItemKind.LIST, ItemKind.SET, ItemKind.OTHER, ItemKind.UNREAD, ItemKind.NULL])
def test_other_kinds_are_not_put(begun: Stand, kind: ItemKind) -> None:
    """A writer takes JSON, hashes and fields."""
    with pytest.raises(SourceError):
        begun.writer.put(Item("a", (b"1",), kind), epoch=1)
    assert 0 == begun.store.marks()


def test_many_writes_are_one_step(begun: Stand) -> None:
    """All of one shard have one n; each has its own kind and expiry."""
    moment = now_ms() + 100_000
    items = [text_item("a", b"x", moment), Item("b", {b"f": b"1"}, ItemKind.HASH), text_item(FIELD, b"3")]

    puts = begun.writer.put_many(items, epoch=1)

    assert [moment, None, None] == [put.expires_at_ms for put in puts]
    assert len(begun.store.by_shard([item.key for item in items])) == len({put.version for put in puts})
    assert items == [begun.item(item.key) for item in items]
    assert [put.version.n for put in puts] == [begun.mark(item.key) for item in items]
    assert [] == list(begun.writer.put_many([], epoch=1))


def test_an_observation_is_of_one_moment(begun: Stand) -> None:
    """All items of a shard have the version of its last write, whichever key that was of."""
    puts = {key: begun.writer.put(text_item(key), epoch=1) for key in ("a", "b", "c")}
    begun.store.ack(begun.shard("b"), [MarkedKey("b", puts["b"].version.n)])

    for shard, keys in begun.store.by_shard(["c", "gone", "b", "a"]).items():
        seen = begun.store.observe(shard, keys)

        assert begun.store.clocks()[shard] == seen.version
        assert [None if key == "gone" else text_item(key) for key in keys] == list(seen.items)
        marks = {"a": puts["a"].version.n, "c": puts["c"].version.n}
        assert [marks.get(key) for key in keys] == list(seen.marks)


def test_a_writer_observes_each_key_for_itself(begun: Stand) -> None:
    """One answer for each key, in order."""
    put = begun.writer.put(text_item("a"), epoch=1)

    first, second = begun.writer.observe(["a", "gone"])

    assert (OPEN, (text_item("a"),), (put.version.n,)) == (first.fence, first.items, first.marks)
    assert ((None,), (None,)) == (second.items, second.marks)
    assert put.version <= first.version
    assert [] == list(begun.writer.observe([]))


def test_a_sealed_shard_counts_as_the_epoch_before(begun: Stand) -> None:
    """What is observed while sealed belongs to the epoch of the writes."""
    put = begun.writer.put(text_item("a"), epoch=1)

    assert begun.go(SEALED)

    seen = begun.seen("a")
    assert (SEALED, put.version) == (seen.fence, seen.version)
    assert put.version == begun.store.clocks()[begun.shard("a")]


def test_marks_come_by_age(begun: Stand) -> None:
    """The oldest first, as many as are asked for; a key has one mark, that of its newest write."""
    keys = [key for key in (f"k{n}" for n in range(30)) if begun.shard(key) == begun.shard("k0")]
    for key in (*keys, keys[0]):
        begun.writer.put(text_item(key), epoch=1)
    shard = begun.shard(keys[0])

    found = begun.store.marked(shard, limit=1000)

    assert [*keys[1:], keys[0]] == [mark.key for mark in found]
    assert sorted(mark.n for mark in found) == [mark.n for mark in found]
    assert list(found[:3]) == list(begun.store.marked(shard, limit=3))
    assert [] == list(begun.store.marked(shard, limit=0))
    assert len(keys) == begun.store.marks()
    assert [shard] == list(begun.store.shards_with_marks())


def test_an_old_ack_does_not_take_a_newer_mark(begun: Stand) -> None:
    """Marks are compared where they are taken away."""
    old = begun.writer.put(text_item("a"), epoch=1).version.n
    new = begun.writer.put(text_item("a"), epoch=1).version.n
    shard = begun.shard("a")

    assert 0 == begun.store.ack(shard, [MarkedKey("a", old), MarkedKey("gone", new)])
    assert new == begun.mark("a")
    assert 1 == begun.store.ack(shard, [MarkedKey("a", new)])
    assert begun.mark("a") is None
    assert 0 == begun.store.ack(shard, [MarkedKey("a", new)])
    assert 0 == begun.store.ack(shard, [])
    assert [] == list(begun.store.shards_with_marks())


def test_shards_are_seen_together(begun: Stand) -> None:
    """Whatever each of them wrote last: all have one version, later writes have later ones, and marks stay."""
    keys = [f"k{n}" for n in range(40)]
    puts = {key: begun.writer.put(text_item(key, key.encode()), epoch=1) for key in keys}
    groups = {shard: [*some, f"{some[0]}x{{{some[0]}}}"] for shard, some in begun.store.by_shard(keys).items()}

    seen = begun.store.observe_together(groups)

    assert list(groups) == list(seen)
    [version] = {each.version for each in seen.values()}
    assert max(put.version for put in puts.values()) <= version
    assert {version} == {version for shard, version in begun.store.clocks().items() if shard in groups}
    for shard, some in groups.items():
        found = dict(zip(some, zip(seen[shard].items, seen[shard].marks, strict=True), strict=True))
        assert OPEN == seen[shard].fence
        for key in some:
            known = puts.get(key)
            assert found[key] == ((text_item(key, key.encode()), known.version.n) if known else (None, None))
    assert all(version < begun.writer.put(text_item(key), epoch=1).version for key in keys)
    assert {} == begun.store.observe_together({})


def test_shards_are_worked_on_together(begun: Stand) -> None:
    """Marks are made, asked for and taken away in many shards at once, each as alone."""
    keys = [f"k{n}" for n in range(60)]
    groups = begun.store.by_shard(keys)

    begun.store.touch_all(groups, epoch=1)

    assert len(keys) == begun.store.marks()
    assert sorted(groups) == sorted(begun.store.shards_with_marks())
    some = list(groups)[:2]
    assert some == list(begun.store.shards_with_marks(some))
    assert [] == list(begun.store.shards_with_marks([]))
    marked = begun.store.marked_in(list(groups), limit=100)
    assert {shard: sorted(own) for shard, own in groups.items()} == {
        shard: sorted(mark.key for mark in marks) for shard, marks in marked.items()
    }
    assert {shard: [OPEN] for shard in some} == {shard: [found] for shard, found in begun.store.fences(some).items()}
    assert len(keys) == begun.store.ack_all(marked)
    assert 0 == begun.store.marks()
    assert 0 == begun.store.ack_all({})
    begun.go(SEALED)
    with pytest.raises(SealedError):
        begun.store.touch_all(groups, epoch=1)
    with pytest.raises(StaleError):
        begun.store.touch_all(groups, epoch=2)


def test_a_touch_is_a_fresh_mark(begun: Stand) -> None:
    """Also of a key that is not there; an ack of before does not take it."""
    old = begun.writer.put(text_item("a"), epoch=1).version
    shard = begun.shard("a")

    n = begun.store.touch(shard, ["a", "{a}gone"], epoch=1)

    assert old.n < n == begun.mark("a") == begun.mark("{a}gone")
    assert Version(1, n) == begun.seen("a").version
    assert 0 == begun.store.ack(shard, [MarkedKey("a", old.n)])
    assert text_item("a") == begun.item("a")


def test_a_fence_moves_by_compare_and_set(begun: Stand) -> None:
    """From an epoch and authority that are named; any other stays, and is counted out."""
    shards = begun.store.shards()

    assert 0 == begun.go(SEALED, epochs=[2, 3])
    assert 0 == begun.go(SEALED, authorities=[Authority.TABLES])
    assert {OPEN} == set(begun.store.fences().values())
    assert len(shards) == begun.go(SEALED, epochs=[0, 1], authorities=[Authority.STORE, Authority.RETIRED])
    assert {SEALED} == set(begun.store.fences().values())


def test_a_fence_that_moved_already_counts(begun: Stand) -> None:
    """A controller that repeats a step, or a second one, finds it done; nothing is cleared twice."""
    assert begun.go(SEALED)
    assert begun.go(TABLES, epochs=[2], authorities=[Authority.SEALED], clear_marks=True)
    opened = Fence(3, Authority.STORE, Logging.MIRROR)
    assert begun.go(opened, epochs=[2], authorities=[Authority.TABLES], clock_epoch=3)
    put = begun.writer.put(text_item("a"), epoch=3)

    again = begun.go(opened, epochs=[2], authorities=[Authority.TABLES], clock_epoch=3, clear_marks=True)

    assert len(begun.store.shards()) == again
    assert Version(3, put.version.n) == put.version == begun.seen("a").version
    assert put.version.n == begun.mark("a")


def test_opening_the_tables_voids_the_marks(begun: Stand) -> None:
    """The marks go in the step that opens; the clock stays."""
    put = begun.writer.put(text_item("a"), epoch=1)

    assert begun.go(SEALED)
    assert put.version.n == begun.mark("a")
    assert begun.go(TABLES, epochs=[2], authorities=[Authority.SEALED], clear_marks=True)

    assert 0 == begun.store.marks()
    assert put.version == begun.seen("a").version


def test_an_aborted_flip_keeps_the_marks(begun: Stand) -> None:
    """The store opens at a higher epoch, of which all later positions are."""
    put = begun.writer.put(text_item("a"), epoch=1)
    begun.go(SEALED)
    opened = Fence(3, Authority.STORE, Logging.MIRROR)

    assert begun.go(opened, epochs=[1, 2], authorities=[Authority.STORE, Authority.SEALED], clock_epoch=3)

    assert put.version.n == begun.mark("a")
    assert Version(3, put.version.n) == begun.seen("a").version
    assert Version(3, put.version.n) < begun.writer.put(text_item("a"), epoch=3).version


def test_an_epoch_never_falls(begun: Stand) -> None:
    """Whatever a controller asks for."""
    begun.go(Fence(5, Authority.STORE, Logging.MIRROR), clock_epoch=5)

    with pytest.raises(SourceError):
        begun.go(Fence(4, Authority.SEALED), epochs=[5])
    assert {5} == {fence.epoch for fence in begun.store.fences().values() if fence}


def test_logging_begins_with_a_new_epoch(stand: Stand) -> None:
    """Unlogged writes did not move the clock, so nothing of their epoch can be compared."""
    stand.begin(Fence(1, Authority.STORE, Logging.NONE))

    for log in (Logging.MIRROR, Logging.MARK_ONLY):
        with pytest.raises(SourceError):
            stand.go(Fence(1, Authority.STORE, log))
    assert {Logging.NONE} == {fence.log for fence in stand.store.fences().values() if fence}
    assert stand.go(Fence(2, Authority.STORE, Logging.MARK_ONLY), clock_epoch=2)
    assert stand.go(Fence(2, Authority.STORE, Logging.MIRROR), epochs=[2])
    assert Version(2, 0) < stand.writer.put(text_item("a"), epoch=2).version


def test_what_is_owed_stays_until_it_is_noted(begun: Stand) -> None:
    """A swap by somebody who read the fence before cannot take it away; it leaves a life that it does not know."""
    begun.store.note(begun.store.shards(), incarnation="one", owes_all=True)

    assert begun.go(SEALED)
    assert {SEALED._replace(incarnation="one", owes_all=True)} == set(begun.store.fences().values())
    begun.store.note(begun.store.shards(), owes_all=False)
    assert {SEALED._replace(incarnation="one")} == set(begun.store.fences().values())
    begun.store.note(begun.store.shards(), incarnation="two")
    begun.store.note(begun.store.shards())
    assert {SEALED._replace(incarnation="two")} == set(begun.store.fences().values())
    owing = Fence(3, Authority.STORE, Logging.MIRROR, "three", owes_all=True)
    assert begun.go(owing, epochs=[2], authorities=[Authority.SEALED], clock_epoch=3)
    assert {owing} == set(begun.store.fences().values())


def test_a_note_creates_no_fence(stand: Stand) -> None:
    """What is missing stays missing."""
    stand.store.note(stand.store.shards(), incarnation="one", owes_all=True)

    assert {None} == set(stand.store.fences().values())


def test_too_many_marks_are_dropped_and_recorded(begun: Stand) -> None:
    """Only where there are more; the fence then owes all."""
    keys = [key for key in (f"k{n}" for n in range(20)) if begun.shard(key) == begun.shard("k0")]
    begun.writer.put_many([text_item(key) for key in keys], epoch=1)
    shard = begun.shard(keys[0])

    assert not begun.store.drop_marks(shard, over=len(keys))
    assert len(keys) == begun.store.marks()
    assert OPEN == begun.store.fences()[shard]
    assert begun.store.drop_marks(shard, over=len(keys) - 1)
    assert 0 == begun.store.marks()
    assert OPEN._replace(owes_all=True) == begun.store.fences()[shard]


@pytest.mark.parametrize(
    "item",
    [
        text_item("a", b'{"x": 1}'),
        text_item("a", b"1", 4_000_000_000_000),
        Item("a", {b"f": b"\xff"}, ItemKind.HASH),
        text_item(FIELD, b"3"),
    ],
)
def test_the_reverse_mirror_writes_what_the_tables_hold(on_tables: Stand, item: Item) -> None:
    """Item, expiry and deletion; a version that was given already, or an older one, changes nothing."""
    shard = on_tables.shard(item.key)

    assert on_tables.store.reverse(shard, item.key, Version(2, 7), item)
    assert item == on_tables.item(item.key)
    for n in (7, 6):
        assert on_tables.store.reverse(shard, item.key, Version(2, n), None)
        assert item == on_tables.item(item.key)
    assert on_tables.store.reverse(shard, item.key, Version(2, 8), None)
    assert on_tables.item(item.key) is None
    assert on_tables.store.reverse(shard, item.key, Version(2, 7), item)
    assert on_tables.item(item.key) is None
    assert [item.key] == list(on_tables.store.guarded(shard))
    assert 0 == on_tables.store.marks()


@pytest.mark.parametrize("version", [Version(1, 9), Version(3, 9)])
def test_the_reverse_mirror_is_fenced_by_epoch(on_tables: Stand, version: Version) -> None:
    """One that was delayed over a flip writes nothing."""
    with pytest.raises(StaleError):
        on_tables.store.reverse(on_tables.shard("a"), "a", version, text_item("a"))
    assert on_tables.item("a") is None
    assert [] == list(on_tables.store.guarded(on_tables.shard("a")))


def test_the_reverse_mirror_is_fenced_by_authority(begun: Stand) -> None:
    """While the store is open or sealed, nobody but its writers changes it."""
    for fence in (OPEN, SEALED):
        with pytest.raises(StaleError) as caught:
            begun.store.reverse(begun.shard("a"), "a", Version(fence.epoch, 9), text_item("a"))
        assert (fence is SEALED) == isinstance(caught.value, SealedError)
        begun.go(SEALED)
    assert begun.item("a") is None


def test_the_guard_goes_when_the_store_opens(on_tables: Stand) -> None:
    """It remembers many keys until then."""
    shard = on_tables.shard("k0")
    keys = [key for key in (f"k{n}" for n in range(3000)) if on_tables.shard(key) == shard]
    for n, key in enumerate(keys):
        on_tables.store.reverse(shard, key, Version(2, n + 1), text_item(key))
    assert sorted(keys) == sorted(set(on_tables.store.guarded(shard)))
    assert [shard] == list(on_tables.store.shards_with_guard())
    opened = Fence(3, Authority.STORE, Logging.MIRROR)

    assert on_tables.go(opened, epochs=[2], authorities=[Authority.TABLES], clock_epoch=3, clear_guard=True)

    assert [] == list(on_tables.store.guarded(shard))
    assert [] == list(on_tables.store.shards_with_guard())
    assert text_item("k0") == on_tables.item("k0")


def test_scopes_do_not_meet(begun: Stand) -> None:
    """Each has its fence, clock and marks."""
    store, writer = begun.scope("other")

    assert {None} == set(store.fences().values())
    assert len(store.shards()) == store.create(store.shards(), Fence(7, Authority.STORE, Logging.MIRROR))
    put = writer.put(text_item("b"), epoch=7)

    assert {OPEN} == set(begun.store.fences().values())
    assert 0 == begun.store.marks()
    assert Version(7, put.version.n) == put.version
    assert 1 == store.marks()


def test_keys_are_grouped_in_their_order(stand: Stand) -> None:
    """Every key is in one shard that the store names."""
    keys = [f"k{n}" for n in range(50)] + [FIELD]

    grouped = stand.store.by_shard(keys)

    assert set(grouped) <= set(stand.store.shards())
    assert sorted(keys) == sorted(key for part in grouped.values() for key in part)
    assert all(sorted(part, key=keys.index) == part for part in grouped.values())
    assert {} == stand.store.by_shard([])
    assert stand.shard(FIELD) == stand.shard("basket:1")


def test_the_life_of_a_store_is_known(begun: Stand) -> None:
    """It is the same until the store restarts; replicas that are not there confirm nothing."""
    assert begun.store.incarnation()
    assert begun.store.incarnation() == begun.store.incarnation()
    assert begun.store.confirm(replicas=0, timeout_s=0.1)
    assert not begun.store.confirm(replicas=1, timeout_s=0.01)
    assert {OPEN} == set(begun.store.fences().values())


def test_what_was_safe_is_remembered(begun: Stand) -> None:
    """The place of each clock, until it is marked anew; a store that lost it says nothing of it."""
    assert {} == begun.store.safe()
    put = begun.writer.put(text_item("b"), epoch=1)
    assert put is not None

    marked = begun.store.mark_safe()
    begun.writer.put(text_item("b"), epoch=1)

    assert (put.version, begun.store.safe()) == (marked[begun.shard("b")], marked)
    assert begun.store.clocks()[begun.shard("b")] > marked[begun.shard("b")]


def test_both_can_be_closed_twice(stand: Stand) -> None:
    """And name their store in logs."""
    for each in (stand.store, stand.writer):
        assert each.name in repr(each)
        each.close()
        each.close()


def test_another_kind_of_store_is_refused() -> None:
    """Only a Redis is written this way."""
    from kvmigrate.stores.redis_fence import RedisFencedStore
    from kvmigrate.stores.redis_writer import RedisWriter

    for url in ("sqlite:///x.db", "redis+cluster://a:1,,b:2", "redis+cluster://a:1/2", "nonsense"):
        with pytest.raises(ConfigError):
            RedisWriter(url, scope="shop")
        with pytest.raises(ConfigError):
            RedisFencedStore(url, scope="shop")


def test_a_writer_makes_and_swaps_the_fence_of_a_key(stand: Stand) -> None:
    """Made where there is none, and swapped only from where it is said to be."""
    sealed, opened = (
        Fence(1, Authority.SEALED, Logging.MIRROR, owes_all=True),
        Fence(2, Authority.STORE, Logging.MIRROR),
    )

    assert stand.writer.create_fence("a", sealed)
    assert not stand.writer.create_fence("a", opened)
    assert sealed == stand.writer.fence("a")
    for epoch, authority in ((2, Authority.SEALED), (1, Authority.STORE)):
        assert not stand.writer.swap_fence("a", epoch=epoch, authority=authority, to=Swap(opened, clock_epoch=2))
    assert stand.writer.swap_fence("a", epoch=1, authority=Authority.SEALED, to=Swap(opened, clock_epoch=2))
    assert opened._replace(owes_all=True) == stand.writer.fence("a")
    assert 2 == stand.writer.put(text_item("a"), epoch=2).version.epoch


def test_without_a_fence_a_write_can_pass_unmarked(stand: Stand) -> None:
    """Written, expired and deleted as ever, and nothing is left behind."""
    assert stand.writer.pass_unfenced(text_item("a", b"2"), "a", ttl_ms=90_000)

    item = stand.writer.get("a")
    assert b"2" == item.value
    assert now_ms() < item.expires_at_ms <= now_ms() + 90_000
    assert stand.writer.pass_unfenced(text_item("a"), "a")
    assert text_item("a") == stand.writer.get("a")
    assert stand.writer.pass_unfenced(None, "a")
    assert stand.writer.get("a") is None
    assert 0 == stand.store.marks()
    assert {} == stand.store.clocks()


@pytest.mark.parametrize("authority", list(Authority))
def test_with_any_fence_no_write_passes(stand: Stand, authority: Authority) -> None:
    """Whatever it says: who may write is then its business alone."""
    stand.begin(Fence(1, authority))

    assert not stand.writer.pass_unfenced(text_item("a"), "a")
    assert not stand.writer.pass_unfenced(None, "a")
    assert stand.writer.get("a") is None


def walked(page: Callable[[str], KeyPage]) -> list[str]:
    """Return all keys of a walk."""
    found, position = list[str](), ""
    while True:
        keys, position = page(position)
        found += keys
        if not position:
            return found


@pytest.mark.parametrize("limit", [1, 7, 500])
def test_a_walk_yields_every_key_with_its_prefix(begun: Stand, limit: int) -> None:
    """And none of the tool's own; what a pattern would mean is a plain character."""
    keys = set(WALKED_KEYS)
    begun.writer.put_many([text_item(key) for key in keys], epoch=1)

    limit *= min(len(begun.store.shards()), 100)  # The tool's own keys, of each slot, are walked over, too.
    for prefix in ("", "a", "a*", "a[b]", "a?:1", "a\\b", "none"):
        found = walked(lambda position, prefix=prefix: begun.writer.keys(prefix=prefix, position=position, limit=limit))  # type: ignore[misc]  # bound now
        assert {key for key in keys if key.startswith(prefix)} == set(found)


def test_the_fields_of_a_hash_are_walked(begun: Stand) -> None:
    """By their addresses; a key that is no hash, or not there, has none."""
    begun.writer.put(Item("basket:1", {b"f%d" % n: b"1" for n in range(1_000)}, ItemKind.HASH), epoch=1)
    begun.writer.put(text_item("text"), epoch=1)
    expected = {f"basket:1{ADDRESS_SEPARATOR}f{n}" for n in range(1_000)}

    assert expected == set(walked(lambda position: begun.writer.fields("basket:1", position=position, limit=100)))
    assert [] == walked(lambda position: begun.writer.fields("text", position=position))
    assert [] == walked(lambda position: begun.writer.fields("nothing", position=position))


def test_an_expiry_that_no_store_can_hold_writes_nothing(begun: Stand) -> None:
    """What a script did before it failed would stay, though the caller hears that it failed."""
    begun.writer.put(text_item("a", b"1"), epoch=1)
    with pytest.raises(SourceError):
        begun.writer.put(text_item("a", b"2"), epoch=1, ttl_ms=10**21)
    with pytest.raises(SourceError):
        begun.writer.put(text_item("a", b"2", 10**21), epoch=1)

    assert text_item("a", b"1") == begun.item("a")


def test_keys_that_begin_like_the_tools_own_are_data(begun: Stand) -> None:
    """Only the tool's own keys are left out of a page."""
    begun.writer.put(text_item("kvm:1", b"1"), epoch=1)

    assert {"kvm:1"} == set(walked(lambda position: begun.writer.keys(prefix="", position=position)))
