"""One contract for the application's store: over memory and over real servers, with and without await."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from kvmigrate.errors import BadValueError, UnmappedKeyError, WriteRefusedError
from kvmigrate.model import ADDRESS_SEPARATOR, Item, Stage
from tests.store_stand import Plain, World
from tests.store_world import MemoryWorld, RealWorld, held

MAPPING = """
version: 1
name: shop
entities:
  client:
    keys: ["client:{id}"]
    table: clients
    columns:
      id:   {key: id, type: text}
      name: {path: name, type: text, required: true}
      paid: {path: paid, type: "numeric(12,2)"}
    primary_key: [id]
    expires: column
  profile:
    keys: ["profile:{id}"]
    table: profiles
    decode: hash
    columns:
      id:   {key: id, type: text}
      name: {path: name, type: text}
    primary_key: [id]
  entry:
    keys: [{hash: registry, field: "{id}"}]
    table: entries
    columns:
      id: {key: id, type: text}
      n:  {path: n, type: bigint}
    primary_key: [id]
  tags:
    keys: ["tags:{id}"]
    decode: list
    rows_only: true
    columns:
      id: {key: id, type: text}
    children:
      tag:
        each: ""
        parent: {id: id}
        columns:
          position: {ordinal: true}
          tag:      {value: true, type: text}
pointers:
  - {key: "clients:all", lists: client}
leave_in_kv:
  - {key: "session:{token}", reason: "short-lived"}
"""

KINDS = ["memory", "memory-async", "real", "real-async"]
TABLES_OPEN = [Stage.RAMPDOWN, Stage.COMPLETE]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """What the store writes to, and how it is called."""
    name: str = request.param
    return name


@pytest.fixture
def world(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """An empty world in stage dualwrite."""
    if kind.startswith("memory"):
        yield MemoryWorld(MAPPING)
        return
    redis_url, database = request.getfixturevalue("redis_url"), request.getfixturevalue("database")
    made = RealWorld(MAPPING, tmp_path, redis_url, database)
    yield made
    made.close()


@pytest.fixture
def store(kind: str, world: World) -> Iterator[Plain]:
    """A store over the world."""
    opened = Plain(world.open_async_store() if kind.endswith("async") else world.open_store())
    yield opened
    opened.close()


def in_store(world: World, key: str) -> Item | None:
    """Return what the store holds."""
    [shard] = world.fenced.by_shard([key])
    return world.fenced.observe(shard, [key]).items[0]


def expiries(world: World, key: str) -> tuple[int | None, int | None]:
    """Return when a key expires in the store and in the tables; it is in both."""
    here, there = in_store(world, key), world.tables(key)
    assert here is not None
    assert there is not None
    return here.expires_at_ms, there.expires_at_ms


def test_a_put_stands_on_both_sides(world: World, store: Plain) -> None:
    """The store accepted it, the tables have it, no mark stays, and the result says so."""
    result = store.put("client:1", {"name": "Ann"})

    assert result.mirrored
    assert result.version is not None
    assert f"{result.version.epoch}.{result.version.n}" == result.token
    assert {"name": "Ann"} == held(in_store(world, "client:1")) == held(world.tables("client:1"))
    assert store.drained()
    assert 0 == world.fenced.marks()


@pytest.mark.parametrize("state", [Stage.DUALWRITE, Stage.RAMPDOWN, "emptied"])
def test_many_are_read_as_each_of_them(world: World, store: Plain, state: Stage | str, monkeypatch: Any) -> None:
    """From the side that leads, whatever their number; what is not there is left out, and asked for twice is one."""
    for module in ("store", "store_async"):
        monkeypatch.setattr(f"kvmigrate.dualwrite.{module}._MANY", 2)
    store.put("client:1", {"name": "Ann", "paid": Decimal("1.10")})
    store.put("profile:1", {"name": "Ann"})
    store.put(f"registry{ADDRESS_SEPARATOR}1", {"n": 1})
    if isinstance(state, Stage):
        world.move(state)
    else:
        world.flush()
    keys = ["client:1", "client:none", "profile:1", "client:1", f"registry{ADDRESS_SEPARATOR}1"]

    found = store.get_many(iter(keys))

    assert {key: value for key in keys if (value := store.get(key)) is not None} == found
    assert (0 if state == "emptied" else 3) == len(found)
    assert {} == store.get_many([])
    with pytest.raises(UnmappedKeyError):
        store.get_many(["client:1", "nothing:1"])


def test_the_store_tells_what_has_reached_the_tables(world: World, store: Plain) -> None:
    """Not while a mark is left, nor where there is no fence that would have left one."""
    version = store.put("client:1", {"name": "Ann"}).version
    assert version is not None
    assert store.drained()
    assert store.has_reached_tables("client:1")
    [shard] = world.fenced.by_shard(["client:1"])
    world.fenced.touch(shard, ["client:1"], epoch=version.epoch)
    assert not store.has_reached_tables("client:1")
    world.flush()
    assert not store.has_reached_tables("client:1")


def test_bytes_go_in_as_they_are(world: World, store: Plain) -> None:
    """No space, digit or member is touched, and they come back so."""
    text = b'{"name" : "Ann", "paid": 1.10, "x": 1e2, "name": "Bo"}'
    store.put("client:1", text)

    item = in_store(world, "client:1")
    assert item is not None
    assert text == item.value
    assert text == store.get_raw("client:1")


def test_a_text_is_json(store: Plain) -> None:
    """A str goes in as it is, if it is JSON; any other is refused before anything is written."""
    store.put("client:1", '{"name":  "Ann"}')

    assert b'{"name":  "Ann"}' == store.get_raw("client:1")
    with pytest.raises(BadValueError, match="not JSON"):
        store.put("client:1", "Ann")
    assert b'{"name":  "Ann"}' == store.get_raw("client:1")


@pytest.mark.parametrize(
    "value", [{"a": float("nan")}, {1: "a"}, {"a": {2, 3}}, {"a": b"x"}, {"a": "\ud800"}, [timedelta(1)]], ids=repr
)
def test_what_json_would_change_is_refused(store: Plain, value: object) -> None:
    """Nothing is turned into null, a text or a list in silence."""
    with pytest.raises(BadValueError) as caught:
        store.put("client:1", value)

    assert caught.value.hint
    assert "client:1" == caught.value.key
    assert store.get("client:1") is None


def test_numbers_keep_every_digit(store: Plain) -> None:
    """A number with a fraction is a Decimal, and an update that does not touch it writes the same digits."""
    store.put("client:1", b'{"name": "Ann", "paid": 1.10, "x": 12345678901234567890.1234567890123456789}')
    store.update("client:1", lambda value: value | {"name": "Bo"})

    assert {
        "name": "Bo",
        "paid": Decimal("1.10"),
        "x": Decimal("12345678901234567890.1234567890123456789"),
    } == store.get("client:1")


def test_a_hash_has_fields(world: World, store: Plain) -> None:
    """An entity of hashes takes and gives a mapping of texts."""
    store.put("profile:1", {"name": "Ann", "city": b"Rome"})

    assert {b"name": b"Ann", b"city": b"Rome"} == held(in_store(world, "profile:1"))
    assert {"name": "Ann", "city": "Rome"} == store.get("profile:1")
    with pytest.raises(BadValueError, match="not a text"):
        store.put("profile:1", {"age": 3})


def test_a_field_of_a_hash_is_an_item(world: World, store: Plain) -> None:
    """Its address is the hash's key and the field."""
    address = f"registry{ADDRESS_SEPARATOR}7"
    assert store.put(address, {"n": 1}).mirrored

    assert {"n": 1} == store.get(address) == held(world.tables(address))
    assert [address] == store.scan("registry")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("other:1", "matches no entity"),
        ("clients:all", "index key"),
        ("session:x", "short-lived"),
        ("tags:1", "element by element"),
        ("client:a\0b", "holds a NUL"),
        ("client:\udc80", "is no UTF-8"),
        ("client:" + "\u00e9" * 1000, "longer than 2000 bytes"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_an_unmapped_key_is_refused(store: Plain, key: str, said: str) -> None:
    """The error says what the key is, and that this store is for mapped keys; nothing is written or read."""
    for call in (lambda: store.put(key, {}), lambda: store.get(key), lambda: store.delete(key)):
        with pytest.raises(UnmappedKeyError, match=said) as caught:
            call()
        assert caught.value.hint
    with pytest.raises(UnmappedKeyError):
        store.put_many({"client:1": {"name": "Ann"}, key: {}})
    assert store.get("client:1") is None


@pytest.mark.parametrize("stage", [Stage.DUALWRITE, Stage.RAMPDOWN])
def test_a_delete_reaches_both_sides(world: World, store: Plain, stage: Stage) -> None:
    """The item is gone on both; deleting it again is no error."""
    world.move(stage)
    store.put("client:1", {"name": "Ann"})
    result = store.delete("client:1")

    assert result.mirrored
    assert store.get("client:1") is None
    assert in_store(world, "client:1") is None
    assert world.tables("client:1") is None
    store.delete("client:1")


@pytest.mark.parametrize("stage", [Stage.DUALWRITE, Stage.RAMPDOWN])
def test_a_ttl_is_the_same_on_both_sides(world: World, store: Plain, stage: Stage) -> None:
    """Seconds or a timedelta; a put without one takes it away."""
    world.move(stage)
    here: int | None = None
    for ttl in (90, timedelta(seconds=90)):
        store.put("client:1", {"name": "Ann"}, ttl)
        here, there = expiries(world, "client:1")
        assert here
        assert here == there
    store.update("client:1", lambda _: {"name": "Bo"})
    assert (here, here) == expiries(world, "client:1")
    store.put("client:1", {"name": "Ann"})

    assert (None, None) == expiries(world, "client:1")
    with pytest.raises(BadValueError, match="no time to live"):
        store.put("client:1", {"name": "Ann"}, 0)


@pytest.mark.parametrize("ttl", [0, -1, 0.0001, 1e18, float("inf"), float("nan"), timedelta.max])
def test_a_ttl_that_is_none_writes_nothing(store: Plain, ttl: Any) -> None:
    """Too short, too long, or no number."""
    store.put("client:1", {"name": "Ann"})
    with pytest.raises(BadValueError, match="no time to live"):
        store.put("client:1", {"name": "Bo"}, ttl)

    assert {"name": "Ann"} == store.get("client:1")


@pytest.mark.parametrize("stage", [Stage.DUALWRITE, Stage.RAMPDOWN])
def test_update_leaves_an_expiry_that_others_changed(world: World, store: Plain, stage: Stage) -> None:
    """Though the value stayed the same meanwhile."""
    world.move(stage)
    store.put("client:1", {"name": "Ann"})
    rival = Plain(world.open_store())
    calls = []

    def change(value: Any) -> Any:
        calls.append(value)
        if len(calls) == 1:
            rival.put("client:1", {"name": "Ann"}, 90)
        return value | {"paid": len(calls)}

    store.update("client:1", change)

    here, there = expiries(world, "client:1")
    assert here
    assert here == there
    rival.close()


@pytest.mark.parametrize("stage", [Stage.DUALWRITE, Stage.RAMPDOWN, Stage.COMPLETE])
def test_update_changes_what_stands_there(world: World, store: Plain, stage: Stage) -> None:
    """It begins with nothing, goes on with what it wrote, and a function that returns nothing writes nothing."""
    world.move(stage)
    store.update("client:1", lambda value: {"name": "Ann", "n": 1} if value is None else value)
    store.update("client:1", lambda value: value | {"n": value["n"] + 1})

    assert {"name": "Ann", "n": 2} == store.get("client:1")
    for returned in (None, "text"):
        with pytest.raises(BadValueError, match="returned"):
            store.update("client:1", lambda _, returned=returned: returned)  # type: ignore[misc]  # bound now
    assert {"name": "Ann", "n": 2} == store.get("client:1")


@pytest.mark.parametrize("stage", [Stage.DUALWRITE, Stage.RAMPDOWN])
def test_update_meets_another_writer(world: World, store: Plain, stage: Stage) -> None:
    """A write between reading and writing is seen: the function is called again with it."""
    world.move(stage)
    store.put("client:1", {"name": "Ann", "n": 1})
    seen = []

    def change(value: Any) -> Any:
        seen.append(value["n"])
        if len(seen) == 1:
            rival.put("client:1", {"name": "Ann", "n": 10})
        return value | {"n": value["n"] + 1}

    rival = Plain(world.open_store())
    store_update = store.update("client:1", change)

    assert [1, 10] == seen
    assert store_update.version is not None
    assert {"name": "Ann", "n": 11} == store.get("client:1")
    rival.close()


@pytest.mark.parametrize("stage", [Stage.DUALWRITE, *TABLES_OPEN])
def test_put_many_writes_all(world: World, store: Plain, stage: Stage) -> None:
    """Each key has its result, and no keys are no write."""
    world.move(stage)
    values = {f"client:{n}": {"name": str(n)} for n in range(20)}
    results = store.put_many(values)

    assert list(values) == list(results)
    assert {stage is not Stage.COMPLETE} == {result.mirrored for result in results.values()}
    assert values == {key: store.get(key) for key in values}
    assert values == {key: held(world.tables(key)) for key in values}
    assert {} == store.put_many({})


@pytest.mark.parametrize("stage", [Stage.DUALWRITE, *TABLES_OPEN])
def test_scan_yields_mapped_keys(world: World, store: Plain, stage: Stage) -> None:
    """Those that begin with the prefix, one that equals it included, and none that the mapping does not know."""
    world.move(stage)
    keys = {f"client:{n}" for n in range(1_200)} | {"client:1:x", "client:1x"}
    store.put_many({key: {"name": "a"} for key in keys if key != "client:1:x"})
    store.put("profile:1", {"name": "a"})
    mapped = keys - {"client:1:x"}

    assert mapped == set(store.scan("client:"))
    assert {key for key in mapped if key.startswith("client:1")} == set(store.scan("client:1"))
    assert mapped | {"profile:1"} == set(store.scan())
    assert [] == store.scan("nobody")


@pytest.mark.parametrize(
    "stage", [Stage.OFF, Stage.DUALWRITE, Stage.SHADOW, Stage.LIVE, Stage.RAMPDOWN, Stage.COMPLETE]
)
def test_every_stage_reads_what_was_written(world: World, store: Plain, stage: Stage) -> None:
    """A write, whatever the stage, is what the next read returns."""
    world.move(stage)
    result = store.put("client:1", {"name": stage})

    assert {"name": stage} == store.get("client:1")
    assert (stage is Stage.OFF) == (result.version is None) == (result.token == "")
    assert (stage not in {Stage.OFF, Stage.COMPLETE}) == result.mirrored


def test_a_stale_belief_is_corrected_by_the_write(world: World, store: Plain) -> None:
    """Whatever a store believed, its write goes to whoever may write now, and is not lost on the way back."""
    store.put("client:1", {"name": "0"})
    store.forget_nothing()
    stages = [Stage.RAMPDOWN, Stage.LIVE, Stage.RAMPDOWN, Stage.COMPLETE, Stage.RAMPDOWN, Stage.LIVE, Stage.OFF]
    for number, stage in enumerate(stages):
        world.move(stage)
        store.put("client:1", {"name": str(number)})
        assert {"name": str(number)} == store.get("client:1")

    assert {"name": str(len(stages) - 1)} == held(in_store(world, "client:1"))


def test_open_tables_owe_the_store_nothing_for_long(world: World, store: Plain) -> None:
    """A write of open tables is in the store when it returns, and is not owed once the companion said so."""
    world.move(Stage.RAMPDOWN)
    assert store.put("client:1", {"name": "Ann"}).mirrored

    assert {"name": "Ann"} == held(in_store(world, "client:1"))
    assert store.drained()
    assert 0 == world.owed()


def test_open_tables_refuse_what_they_cannot_hold(world: World, store: Plain) -> None:
    """The store accepts it and keeps the mark; open tables say no, and nothing changes."""
    result = store.put("client:1", {"no": "name"})
    assert not result.mirrored
    assert store.drained()
    assert 1 == world.fenced.marks()
    store.put("client:1", {"name": "Ann"})
    world.move(Stage.RAMPDOWN)

    with pytest.raises(WriteRefusedError):
        store.put("client:1", {"no": "name"})
    assert {"name": "Ann"} == store.get("client:1")


def test_an_emptied_store_is_written_again(world: World, store: Plain) -> None:
    """The fence comes back at a new epoch that owes everything."""
    first = store.put("client:1", {"name": "Ann"})
    world.flush()
    result = store.put("client:1", {"name": "Bo"})

    [fence] = world.fenced.fences().values()
    assert fence is not None
    assert fence.owes_all
    assert first.version is not None
    assert result.version is not None
    assert first.version.epoch < fence.epoch == result.version.epoch
    assert {"name": "Bo"} == store.get("client:1") == held(world.tables("client:1"))
