"""Endpoints without servers: who decides, whom a share lets in, when the tables are left alone."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest

from kvmigrate.errors import ConfigError
from kvmigrate.flags.bucket import position
from kvmigrate.intent import EVERY, Rollback
from kvmigrate.model import Authority, Fence, Stage
from kvmigrate.reads.bounds import plan_of
from kvmigrate.reads.counts import BUCKETS, Counts, Outcome, Side
from kvmigrate.reads.demotion import Demotion
from kvmigrate.reads.poll import Poller
from kvmigrate.reads.reads import Reads
from kvmigrate.reads.reads_async import AsyncReads
from kvmigrate.reads.request import read_token, request
from kvmigrate.reads.router import Router
from tests.endpoint_stand import FAULTS, SLUG, Closing, Stand

Make = Callable[..., Stand]


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes endpoints, with and without an event loop."""
    made: list[Stand] = []

    def stand(stage: Stage = Stage.LIVE, **intent: Any) -> Stand:
        made.append(Stand(stage, is_async=request.param, **intent))
        return made[-1]

    yield stand
    for each in made:
        each.close()


class Textless:
    """What has no text."""

    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize("lists", [{}, {"block": frozenset({"7"})}])
def test_to_choose_a_side_raises_nothing(make: Make, lists: dict[str, Any]) -> None:
    """Clients send half characters, and what has no text reads the store."""
    stand = make(**lists)

    assert ("tables", "kv") == (stand.call("\ud800"), stand.call(Textless()))
    assert 0 <= position("shop", "\ud800") < 10_000


def test_logs_that_fail_hurt_nobody(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """How a service logs is its own."""

    class Broken:
        """A logger whose processor raises."""

        def warning(self, *args: object, **told: object) -> None:
            """Raise."""
            raise RuntimeError(args, told)

    monkeypatch.setattr("kvmigrate.reads.state._log", Broken())
    stand = make()
    stand.tables = FAULTS["error"]

    assert ["kv"] * 6 == [stand.call("1") for _ in range(6)]
    assert stand.demotion.is_open


def test_what_cannot_begin_leaves_reads_with_the_store() -> None:
    """A process that may begin no thread, or read no folder, serves its requests; later calls try again."""
    tried = []

    def begin(_: Router) -> list[Poller]:
        tried.append(1)
        raise RuntimeError("can't start new thread")

    reads = Reads(Router("shop", begin), Closing(), Closing(), lambda: None)  # type: ignore[arg-type]
    read = reads.endpoint("a")(lambda: "kv")

    assert ["kv", "kv"] == [read(), read()]
    assert [1, 1] == tried


def test_a_forked_process_counts_from_zero(make: Make) -> None:
    """What its parent counted its parent says: together they are what there was."""
    stand = make()
    stand.call("1")
    stand.router.begin_anew()
    assert 0 == stand.state.counts.reads
    stand.call("1")
    assert 1 == stand.state.counts.reads


def test_the_latest_epoch_of_some_shards_says_who_leads(make: Make) -> None:
    """While a flip moves them; and one that owes is enough to read the store."""
    stand = make(Stage.LIVE)
    later, earlier = Fence(9, Authority.TABLES), Fence(5, Authority.STORE)
    stand.router.hear_fences([later, None, earlier])
    assert stand.state.plan.leads
    stand.router.hear_fences([earlier._replace(owes_all=True), earlier])
    assert "kv" == stand.call("1")


def test_a_rollback_of_a_pattern_is_of_all_that_fit(make: Make) -> None:
    """As flags have patterns; others stay with the tables."""
    stand, back = make(), Rollback("2026-01-01T00:00:00+00:00", "ada")
    stand.router.hear_rollbacks("store", {"get.catalogs.*": back})
    assert "tables" == stand.call("1")
    stand.router.hear_rollbacks("store", {"get.catalogs.*": back, "get.clients.*": back})
    assert "kv" == stand.call("1")


def test_counts_are_told_while_others_count() -> None:
    """Another thread counts what nobody counted before."""
    counts = Counts()

    class Bucket(int):
        """Counts something else as it is told."""

        def __str__(self) -> str:
            counts.pairs[len(counts.pairs)] += 1
            return "7"

    counts.pairs[Bucket(7)] += 1

    assert {"7": 1} == counts.to_json()["pairs"]


def test_times_are_told_in_buckets_of_which_the_last_holds_the_rest() -> None:
    """A read of no time at all is in the first, and one of years among those of more than eight seconds."""
    counts = Counts()
    for elapsed in (0.0, 0.9e-6, 1e-6, 3e-6, 9.0, 17.0, 40.0, 1e8):
        counts.took(Side.TABLES, elapsed, Outcome.VALUE)
    times = counts.to_json()["times"]

    assert [BUCKETS, BUCKETS] == [len(each) for each in times.values()]
    assert {0: 2, 1: 1, 2: 1, BUCKETS - 1: 4} == {at: number for at, number in enumerate(times["tables"]) if number}
    assert 0 == sum(times["kv"])


def test_a_reader_that_hangs_is_given_up() -> None:
    """In an event loop, whatever it waits for, after its deadline."""
    stand = Stand(is_async=True)
    stand.tables = lambda _: asyncio.sleep(60)

    assert "kv" == stand.call("1")
    assert 1 == stand.tables_outcomes()[4]
    stand.close()


def test_a_share_is_who_is_within_it(make: Make) -> None:
    """The same people each time, and those of a smaller share are among those of a greater one."""
    stand = make(share=2_550)
    people = [str(number) for number in range(300)]

    within = {each for each in people if stand.call(each) == "tables"}

    assert {each for each in people if position("shop", each) < 2_550} == within
    stand.intend(share=5_000, shadow=0)
    assert within < {each for each in people if stand.call(each) == "tables"}


def test_lists_of_names_win_over_the_share(make: Make) -> None:
    """Allowed at 0 %, blocked at 100 %; numbers are named as texts."""
    stand = make(share=0, allow=frozenset({"7"}))
    assert ("tables", "kv") == (stand.call(7), stand.call(8))
    stand.intend(share=10_000, block=frozenset({"7"}))
    assert ("kv", "tables") == (stand.call(7), stand.call(8))


def test_a_tester_chooses_the_side(make: Make) -> None:
    """In stage live; before, the store answers all the same."""
    stand = make(share=0)
    with request(read_from="tables"):
        assert "tables" == stand.call("1")
    stand.intend(share=10_000)
    with request(read_from="kv"):
        assert "kv" == stand.call("1")
    stand.stage(Stage.SHADOW)
    with request(read_from="tables"):
        assert "kv" == stand.call("1")


def test_a_flag_may_be_sticky_by_what_the_request_brings(make: Make) -> None:
    """A property that is no argument; without it, nobody knows who that is."""
    stand = make(share=10_000, sticky="tenant")

    assert "kv" == stand.call("1")
    with request(tenant="a"):
        assert "tables" == stand.call("1")


def test_news_that_are_old_end_reads_of_tables(make: Make) -> None:
    """A process that cannot see the control row cannot know whether the tables still follow."""
    stand = make()
    assert "tables" == stand.call("1")
    stand.router.life.until = monotonic()

    assert "kv" == stand.call("1")


@pytest.mark.parametrize("slug", [EVERY, SLUG])
def test_a_rollback_from_any_place_suffices(make: Make, slug: str) -> None:
    """And all of them must be gone before reads return."""
    stand = make()
    for place in ("store", "target"):
        stand.router.hear_rollbacks(place, {slug: Rollback("now", "ada")})
    assert "kv" == stand.call("1")
    stand.router.hear_rollbacks("store", {})
    assert "kv" == stand.call("1")
    stand.router.hear_rollbacks("target", {})
    assert "tables" == stand.call("1")


def test_tables_that_fail_are_left_alone(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """After five failures in a row the store answers at once; later one read tries, and all return."""
    stand = make()
    stand.tables = FAULTS["error"]
    for _ in range(8):
        assert "kv" == stand.call("1")

    assert 5 == stand.asked.count("tables")
    assert {"error": 5, "breaker": 3} == stand.state.counts.fallbacks
    assert "error: RuntimeError" == stand.demotion.why
    stand.tables = lambda _: "tables"
    monkeypatch.setattr(stand.demotion._pause, "until", 0.0)
    assert ["tables", "tables"] == [stand.call("1"), stand.call("1")]


def test_two_endpoints_of_one_flag_are_refused() -> None:
    """They would move together without anybody's wish."""
    reads = Reads(Router("shop", lambda _: []), Closing(), Closing(), lambda: None)  # type: ignore[arg-type]
    reads.endpoint("GET /a/{b}")(lambda: None)

    with pytest.raises(ConfigError, match=r"'get\.a\.b' is the flag of 'GET /a/{b}', too"):
        reads.endpoint("get a b")(lambda: None)


@pytest.mark.parametrize("wrong", ["", "5", "a.b", "1.", "-1.2", "1.٣", "1.2.", "1.2.3.4", "1.2.-3"])
def test_a_wrong_token_is_refused(wrong: str) -> None:
    """It comes from a client, who may send anything."""
    with pytest.raises(ConfigError, match="no token"):
        read_token(wrong)


def test_a_routed_reader_looks_like_the_one_that_was_decorated() -> None:
    """Frameworks look at the signature, and at whether it is to be awaited."""
    router = Router("shop", lambda _: [])
    made = Reads(router, Closing(), Closing(), lambda: None)  # type: ignore[arg-type]
    made_async = AsyncReads(router, Closing(), Closing(), lambda: None)  # type: ignore[arg-type]

    @made.endpoint("a")
    def plain(id: int, *, deep: bool = False) -> str:  # noqa: A002 - as routes have it
        """Say it."""
        return f"{id}{deep}"

    @made_async.endpoint("b")
    async def awaited(id: int) -> str:  # noqa: A002 - as routes have it
        return str(id)

    assert "(id: 'int', *, deep: 'bool' = False) -> 'str'" == str(inspect.signature(plain))
    assert ("plain", "Say it.") == (plain.__name__, plain.__doc__)  # type: ignore[attr-defined]
    assert (False, True) == (inspect.iscoroutinefunction(plain), inspect.iscoroutinefunction(awaited))


@pytest.mark.parametrize("key", ["client:{nobody}", "client:{id}:{x}"])
def test_a_key_of_unknown_arguments_is_refused(key: str) -> None:
    """When the endpoint is made, not when it is called."""
    reads = Reads(Router("shop", lambda _: []), Closing(), Closing(), lambda: None)  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match="is no argument of"):
        reads.endpoint("a", key=key)(lambda id: id)  # noqa: A006 - as routes have it


def test_a_plan_of_older_news_never_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one thread makes a plan of new flags, another hears that the tables may not be read any more."""
    stand = Stand(share=0)
    made, goes_on = plan_of, threading.Event()
    halts = threading.Event()

    def slow(*args: Any, **kwargs: Any) -> Any:
        plan = made(*args, **kwargs)
        if threading.current_thread().name == "flags":
            halts.set()
            goes_on.wait(10)
        return plan

    monkeypatch.setattr("kvmigrate.reads.router.plan_of", slow)
    flags = threading.Thread(target=lambda: stand.intend(share=10_000), name="flags")
    control = threading.Thread(target=lambda: stand.stage(Stage.OFF), name="control")
    flags.start()
    assert halts.wait(10)
    control.start()
    control.join(0.2)
    goes_on.set()
    flags.join(10)
    control.join(10)

    assert (0, False) == (stand.state.plan.share, stand.state.plan.may)
    assert "kv" == stand.call("1")


def test_the_router_explains_a_request(make: Make) -> None:
    """What the command says, for a process of one's own."""
    stand = make(share=9_500)

    assert "tables" == stand.router.explain(SLUG, {"id": 42})["side"]
    assert "its place 91.16 is below 95" == stand.router.explain(SLUG, {"id": 42})["why"]
    with pytest.raises(ConfigError, match="there is no endpoint 'x'"):
        stand.router.explain("x", {})


def test_differences_among_the_newest_comparisons_demote() -> None:
    """Three of twenty, also where others match in between; older ones are forgotten; a person may end it."""
    demotion = Demotion()
    opened = [demotion.differed(0.0)]
    for _ in range(2):
        for _ in range(11):
            demotion.matched(0.0)
        opened.append(demotion.differed(0.0))
    opened.append(demotion.differed(0.0))

    assert [False, False, False, True] == opened
    demotion.close()
    assert demotion.lets(0.0)
    assert demotion.is_calm


def test_reads_that_are_wrong_return_by_comparisons_alone() -> None:
    """A read that is wrong looks well: none may try, until the time is over and twenty comparisons found nothing."""
    demotion = Demotion(most_s=60.0)
    for _ in range(3):
        demotion.differed(0.0)
    demotion.succeeded()
    assert not demotion.lets(1e6)
    for _ in range(30):
        demotion.matched(59.0)
    assert demotion.is_open
    demotion.matched(60.0)
    assert demotion.lets(60.0)
    assert demotion.is_calm


def test_failures_that_were_under_way_do_not_prolong_a_pause() -> None:
    """Of fifty reads that fail together, the first five open it: the others say nothing new."""
    demotion = Demotion(pause_s=1.0, jitter=lambda: 1.0)
    for _ in range(50):
        demotion.failed(0.0, "error")

    assert [False, True] == [demotion.lets(now) for now in (0.9, 1.0)]


def test_reads_under_way_end_no_pause() -> None:
    """Only the one read that tries after a pause says that the tables are well again."""
    demotion = Demotion(pause_s=1.0, jitter=lambda: 1.0)
    for _ in range(5):
        demotion.failed(0.0, "down")

    demotion.succeeded()

    assert demotion.is_open
    assert not demotion.lets(0.5)
    assert demotion.lets(1.0)
    demotion.succeeded()
    assert not demotion.is_open


def test_half_of_the_newest_reads_demote() -> None:
    """Also where none of them fail in a row."""
    demotion = Demotion()
    opened = []
    for number in range(20):
        opened.append(demotion.failed(float(number), "error"))
        demotion.succeeded()
        if any(opened):
            break

    assert 10 == len(opened)
