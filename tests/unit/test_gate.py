import json
from typing import Any

import pytest

from kvmigrate.cutover.divergence import Measurement, Verified, Wish
from kvmigrate.cutover.gate import Facts, GateReport, Verdict, evaluate, evaluate_reads
from kvmigrate.cutover.readiness import Backup, Errors, Pairs, Ready
from kvmigrate.errors import CheckFailedError, ConfigError
from kvmigrate.gating import errors_of
from kvmigrate.model import Logging, Stage
from kvmigrate.target.live_base import ProcessSeen


def seen(name: str, *, live: bool, age_s: float = 1.0, kind: str = "adapter") -> ProcessSeen:
    """A process that writes."""
    return ProcessSeen(name, kind, "0.1", 1, "live", live, age_s)


GOOD = Facts(
    Stage.LIVE,
    Stage.RAMPDOWN,
    is_backfilled=True,
    logging={Logging.MIRROR: 3},
    processes=[seen("shop", live=True), seen("relay", live=True, kind="relay")],
)


def failed(facts: Facts, **overrides: str) -> list[str]:
    """The checks that stand in the way."""
    report = evaluate(facts, overrides)
    return [
        each.name
        for each in report.checks
        if each.is_asked and each.verdict is not Verdict.PASS and each.name not in overrides
    ]


def test_a_gate_without_anything_in_the_way_passes() -> None:
    """Every check of a flip is told, also those that pass."""
    report = evaluate(GOOD, {})

    assert Verdict.PASS is report.verdict
    names = "phase backfill logging reconciled lag divergence flags latency errors backup quarantined waiting mapping"
    assert [*names.split(), "processes", "failover", "left_in_kv"] == [each.name for each in report.checks]
    unasked = ["divergence", "flags", "latency", "errors", "backup"]
    assert unasked == [each.name for each in report.checks if not each.is_asked]
    report.check()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"phase": "first load"}, "phase"),
        ({"is_backfilled": False}, "backfill"),
        ({"logging": {Logging.MIRROR: 2, Logging.MARK_ONLY: 1}}, "logging"),
        ({"logging": {Logging.MIRROR: 2, None: 1}}, "logging"),
        ({"logging": {}}, "logging"),
        ({"owes_all": True}, "reconciled"),
        ({"marks": 501}, "lag"),
        ({"quarantined": 1}, "quarantined"),
        ({"waiting": 2}, "waiting"),
        ({"processes": [seen("a", live=True), seen("b", live=False)]}, "processes"),
        ({"processes": [seen("a", live=True), seen("b", live=False, kind="relay")]}, "processes"),
        ({"processes": []}, "processes"),
        ({"tells_failovers": False}, "failover"),
        ({"outdated": 3}, "mapping"),
        ({"left": ["session"]}, "left_in_kv"),
        ({"pointers": ["sku:{sku}"]}, "pointers"),
        ({"commands": ["LPOS on gift:{id}"]}, "commands"),
    ],
)
def test_each_thing_in_the_way_of_a_flip_is_named(changes: dict[str, Any], name: str) -> None:
    """One failing check, with a reason, and the error names it."""
    facts = GOOD._replace(**changes)

    assert [name] == failed(facts)
    with pytest.raises(CheckFailedError, match="the gate into rampdown says"):
        evaluate(facts, {}).check()


def test_a_flip_that_no_process_would_follow_is_not_green() -> None:
    """A relay writes nothing, and who is silent is none: nobody was measured."""
    silent = seen("gone", live=True, age_s=3601)
    for processes in ([], [seen("relay", live=True, kind="relay")], [silent]):
        facts = GOOD._replace(processes=processes)

        assert Verdict.NO_DATA is evaluate(facts, {}).verdict
        assert Verdict.PASS is evaluate(facts, {"processes": "nothing writes any more"}).verdict


def test_a_process_that_was_silent_for_an_hour_does_not_count() -> None:
    """It never writes without a fence again."""
    silent = seen("gone", live=False, age_s=3601)

    assert [] == failed(GOOD._replace(processes=[silent, seen("a", live=True)]))


@pytest.mark.parametrize(
    ("to", "names"),
    [
        (Stage.DUALWRITE, "phase"),
        (Stage.SHADOW, "phase backfill logging reconciled"),
        (Stage.LIVE, "phase backfill logging reconciled lag divergence flags"),
        (Stage.COMPLETE, "phase owed"),
    ],
)
def test_each_stage_has_its_own_checks(to: Stage, names: str) -> None:
    """Nothing is asked that a stage does not need."""
    assert names.split() == [each.name for each in evaluate(GOOD._replace(to=to), {}).checks]


def test_whoever_works_by_another_mapping_is_named() -> None:
    """Writers and relays alike; a relay of an earlier version does not tell, and who was not heard of is gone."""
    relay = seen("b", live=True, kind="relay")
    facts = GOOD._replace(mapping="new", processes=[seen("a", live=True)._replace(mapping="new"), relay])
    assert [] == failed(facts)

    other = seen("c", live=True, kind="relay")._replace(mapping="old")
    [check] = [
        each
        for each in evaluate(facts._replace(processes=[*facts.processes, other]), {}).checks
        if each.name == "processes"
    ]

    assert (Verdict.FAIL, 1, True) == (check.verdict, check.value, "c: alive, and work by another" in check.reason)
    assert [] == failed(facts._replace(processes=[*facts.processes, other._replace(age_s=7200.0)]))


def test_whoever_writes_and_tells_no_mapping_is_not_green() -> None:
    """An earlier version may write by any; what is known to be wrong comes first."""
    old = seen("old", live=True)
    facts = GOOD._replace(mapping="new", processes=[seen("a", live=True)._replace(mapping="new"), old])

    def check(facts: Facts) -> tuple[Verdict, str]:
        return next((each.verdict, each.reason) for each in evaluate(facts, {}).checks if each.name == "processes")

    verdict, why = check(facts)
    assert (Verdict.INCONCLUSIVE, "old: alive, and do not say") == (verdict, why[:26])
    blind = [*facts.processes, seen("blind", live=False)]
    assert Verdict.FAIL is check(facts._replace(processes=blind))[0]
    assert [] == failed(facts._replace(processes=[facts.processes[0], old._replace(age_s=7200.0)]))


def test_what_was_not_seen_is_inconclusive() -> None:
    """Where nothing fails, it is told apart from a failure."""
    assert Verdict.INCONCLUSIVE is evaluate(GOOD._replace(tells_failovers=False), {}).verdict
    assert Verdict.FAIL is evaluate(GOOD._replace(tells_failovers=False, waiting=1), {}).verdict


def test_an_override_waives_one_check_with_its_reason() -> None:
    """It stays in the report as it is."""
    facts = GOOD._replace(marks=900)

    report = evaluate(facts, {"lag": "nightly job"})

    assert (Verdict.PASS, {"lag": "nightly job"}) == (report.verdict, report.overridden)
    assert "fail" == next(each["verdict"] for each in report.to_json()["checks"] if each["name"] == "lag")
    assert [] == failed(facts, lag="nightly job")


@pytest.mark.parametrize("name", ["backfill", "quarantined", "logging", "reconciled", "nonsense"])
def test_what_a_flip_cannot_do_without_is_not_overridden(name: str) -> None:
    """It would lose something, or be refused by the database anyway."""
    with pytest.raises(ConfigError, match="cannot be overridden"):
        evaluate(GOOD, {name: "because"})


def test_every_check_has_all_fields() -> None:
    """As the published schema has them."""
    report: GateReport = evaluate(GOOD, {})
    fields = {"name", "verdict", "value", "operator", "limit", "unit", "n", "needed", "reason", "is_asked"}

    assert [fields] * len(report.checks) == [set(each) for each in report.to_json()["checks"]]


CLEAN = Measurement("sample", 3_000, 100_000, 0, 0.0, 0.0997, 0.0997, age_s=60.0)


def divergence(measured: Measurement | None, wish: Wish) -> tuple[str, int] | None:
    """The verdict on a measurement, and how many keys it wants; ``None`` where it stands in nobody's way."""
    report = evaluate(GOOD._replace(measured=measured, wish=wish), {})
    found = [(str(each.verdict), each.needed) for each in report.checks if each.name == "divergence" and each.is_asked]
    assert 1 == sum(each.name == "divergence" and bool(each.reason or each.is_asked) for each in report.checks)
    return found[0] if found else None


@pytest.mark.parametrize(
    ("changes", "wish", "expected"),
    [
        ({}, Wish(), "pass"),
        ({"divergent": 1, "lower_pct": 0.01}, Wish(), "fail"),
        ({"divergent": 1, "lower_pct": 0.01, "age_s": 90_000.0}, Wish(), None),
        ({"divergent": 1, "lower_pct": 0.01, "is_current": False}, Wish(), None),
        ({"unmended": 2}, Wish(), "fail"),
        ({"unmended": 2, "age_s": 90_000.0}, Wish(), "fail"),
        ({"unmended": 2, "is_current": False}, Wish(), "fail"),
        ({"n": 0, "upper_pct": 100.0, "worst_pct": 100.0}, Wish(), "inconclusive"),
        ({"n": 0, "population": 0, "upper_pct": 0.0, "worst_pct": 0.0}, Wish(0.1), "pass"),
        ({}, Wish(0.1), "pass"),
        ({}, Wish(0.05), "inconclusive"),
        ({"divergent": 9, "lower_pct": 0.06, "upper_pct": 0.5}, Wish(0.05), "fail"),
        ({"divergent": 2, "lower_pct": 0.01, "upper_pct": 0.09, "worst_pct": 0.09}, Wish(0.1), "pass"),
        ({"worst_pct": 4.0}, Wish(0.1), "inconclusive"),
        ({"age_s": 90_000.0}, Wish(0.1), "inconclusive"),
        ({"is_current": False}, Wish(0.1), "inconclusive"),
        ({}, Wish(None, 5_000), "inconclusive"),
        ({"n": 800, "population": 800}, Wish(None, 5_000), "pass"),
        ({"n": 800, "population": 800, "upper_pct": 0.0, "worst_pct": 0.0}, Wish(0.0), "pass"),
    ],
)
def test_what_a_measurement_says_to_the_gate(changes: dict[str, Any], wish: Wish, expected: str | None) -> None:
    """A difference that was found fails; what says too little is inconclusive, never green."""
    found = divergence(CLEAN._replace(**changes), wish)

    assert expected == (found[0] if found else None)


def test_nothing_measured_is_no_data_where_it_is_asked_for() -> None:
    """And where it is not: neither green nor in the way, and told with what to type."""
    [unasked] = [each for each in evaluate(GOOD, {}).checks if each.name == "divergence"]
    assert ("no_data", "nothing was measured: `kvmigrate sample`") == (unasked.verdict, unasked.reason)
    assert divergence(None, Wish()) is None
    assert ("no_data", 0) == divergence(None, Wish(0.1))
    assert ("no_data", 500) == divergence(None, Wish(0.1, 500))
    assert ("inconclusive", 5_000) == divergence(CLEAN, Wish(0.1, 5_000))
    assert Verdict.NO_DATA is evaluate(GOOD._replace(wish=Wish(0.1)), {}).verdict
    assert Verdict.PASS is evaluate(GOOD._replace(wish=Wish(0.1)), {"divergence": "a drill"}).verdict


@pytest.mark.parametrize(
    ("verified", "expected"),
    [
        (None, "no_data"),
        ({}, "pass"),
        ({"order": Verified(0, 0), "gift": Verified(3, 3)}, "pass"),
        ({"order": Verified(1, 0)}, "fail"),
        ({"order": Verified(0, 1)}, "inconclusive"),
        ({"order": Verified(1, 1)}, "fail"),
    ],
)
def test_nothing_of_some_entities_may_diverge(verified: dict[str, Verified] | None, expected: str) -> None:
    """Only a whole verification shows it; neither a good sample nor a bound that allows some does."""
    wish = Wish(50.0, 0, ("order",))
    facts = GOOD._replace(measured=CLEAN._replace(verified=verified), wish=wish)

    found = {each.name: each.verdict for each in evaluate(facts, {}).checks}

    assert ("pass", expected) == (found["divergence"], found["zero_tolerance"])
    assert Verdict.NO_DATA is evaluate(GOOD._replace(wish=Wish(zero_tolerance=("order",))), {}).verdict
    assert Verdict.PASS is evaluate(facts, {"zero_tolerance": "a drill"}).verdict


FAST = Pairs(200, 1.5)
WANTED = Wish(max_slowdown=2.0, max_backup_age_h=24.0)
YESTERDAY = Backup("2026-03-01T04:00:00+00:00", "ann", 23 * 3600.0)


@pytest.mark.parametrize(
    ("ready", "expected"),
    [
        (Ready(), "no_data no_data no_data"),
        (Ready({"a": FAST}, 1.0, YESTERDAY), "pass pass pass"),
        (Ready({"a": FAST, "b": Pairs(200, 2.1)}, 299.0, YESTERDAY), "pass fail pass"),
        (Ready({"a": FAST, "b": Pairs(99, 9.0)}, 1.0, YESTERDAY), "pass inconclusive pass"),
        (Ready({"a": FAST, "b": Pairs(0, None)}, 1.0, YESTERDAY), "pass inconclusive pass"),
        (Ready({"a": Pairs(200, 2.1), "b": Pairs(0, None)}, 1.0, YESTERDAY), "pass fail pass"),
        (Ready({"a": FAST}, 301.0, YESTERDAY._replace(age_s=25 * 3600.0)), "fail pass fail"),
        (Ready({"a": FAST}, float("inf"), YESTERDAY), "fail pass pass"),
    ],
)
def test_flags_latency_and_backup(ready: Ready, expected: str) -> None:
    """Each of the four verdicts, with its reason; the worst endpoint counts, and too few requests are not green."""
    report = evaluate(GOOD._replace(ready=ready, wish=WANTED), {})
    found = {each.name: each for each in report.checks}
    told = [found[name] for name in ("flags", "latency", "backup")]

    assert expected.split() == [each.verdict.value for each in told]
    assert all(bool(each.reason) is (each.verdict is not Verdict.PASS) for each in told)
    json.dumps(report.to_json(), allow_nan=False)


SURE = Errors(5000, 0, 3, 9, 0.0, 0.16)


@pytest.mark.parametrize(
    ("errors", "limit", "expected", "told"),
    [
        ({}, 0.5, "no_data", "give flags a `shadow` share"),
        ({"a": Errors(0)}, 0.5, "no_data", "give flags a `shadow` share"),
        ({"a": SURE}, 0.5, "pass", ""),
        ({"a": SURE, "b": Errors(0)}, 0.5, "inconclusive", "b: up to 100 % of 0 requests"),
        ({"a": SURE}, 0.1, "inconclusive", "up to 0.16 % of 5000 requests"),
        ({"a": SURE, "b": Errors(99, 0, upper_pct=0.1)}, 0.5, "inconclusive", "1 more are wanted"),
        ({"a": SURE, "b": Errors(300, 4, 0, 0, 0.2, 4.0, 900)}, 0.5, "inconclusive", "900 more are wanted"),
        ({"a": SURE, "b": Errors(300, 9, 1, 0, 0.6, 7.0)}, 0.5, "fail", "b: the tables failed 9 of 300 requests"),
        ({"a": SURE, "b": Errors(300, 9, 1, 0, 0.6, 7.0)}, None, "inconclusive", ""),
        ({"a": SURE, "b": Errors(8, 8, 0, 0, 52.0, 100.0)}, None, "fail", "and the store 0 that they answered"),
        ({"a": SURE, "b": Errors(4, 4, 0, 0, 39.0, 100.0)}, None, "inconclusive", "96 more are wanted"),
    ],
)
def test_errors_of_both_sides(errors: dict[str, Errors], limit: float | None, expected: str, told: str) -> None:
    """Only what the tables fail and the store answers counts; without a wish it stands in the way where it is shown."""
    facts = GOOD._replace(ready=Ready(errors=errors), wish=Wish(max_errors_pct=limit))
    report = evaluate(facts, {})
    [found] = [each for each in report.checks if each.name == "errors"]

    assert (expected, limit is not None or expected == "fail") == (found.verdict.value, found.is_asked)
    assert told in found.reason
    assert Verdict(expected if found.is_asked else "pass") is report.verdict
    assert Verdict.PASS is evaluate(facts, {"errors": "a drill"}).verdict
    json.dumps(report.to_json(), allow_nan=False)


def test_requests_that_the_store_failed_say_nothing_of_the_tables() -> None:
    """However many of them there are, they neither make a failing side look well nor prove a well one."""
    assert (0, 700) == (errors_of({"neither": 700}, 1.0).n, errors_of({"neither": 700}, 1.0).both)
    failing = errors_of({"neither": 100_000, "tables": 7, "kv": 500}, 1.0)
    assert (500, 500, 7) == (failing.n, failing.tables, failing.store)
    assert failing.lower_pct > 98


def test_more_reads_want_what_is_known_of_their_endpoint() -> None:
    """Divergence, latency and errors; those of other endpoints, the fleet and the stage are of no concern."""
    ready = Ready({"a": Pairs(200, 9.0), "b": FAST}, errors={"a": Errors(300, 9, 1, 0, 2.0, 7.0), "b": SURE})
    wish = Wish(max_slowdown=2.0, max_errors_pct=0.5)

    def verdicts(pattern: str) -> dict[str, str]:
        return {each.name: each.verdict.value for each in evaluate_reads(CLEAN, wish, ready.of(pattern), {}).checks}

    assert {"divergence": "pass", "latency": "pass", "errors": "pass"} == verdicts("b")
    assert {"divergence": "pass", "latency": "fail", "errors": "fail"} == verdicts("a") == verdicts("*")
    assert {"divergence": "pass", "latency": "no_data", "errors": "no_data"} == verdicts("c")
    with pytest.raises(CheckFailedError, match="the gate into reads says fail: the tables take"):
        evaluate_reads(CLEAN, wish, ready.of("a"), {}).check()


def test_what_nobody_asks_for_stands_in_nobodys_way() -> None:
    """But for flags that a process is known not to follow; each can be waived."""
    slow = Ready({"a": Pairs(200, 900.0)}, None, YESTERDAY._replace(age_s=1e9))
    assert Verdict.PASS is evaluate(GOOD._replace(ready=slow), {}).verdict
    deaf = GOOD._replace(ready=slow._replace(flags_age_s=301.0))
    assert ["flags"] == failed(deaf)
    assert Verdict.FAIL is evaluate(deaf, {}).verdict
    reasons = dict.fromkeys(("flags", "latency", "backup"), "a drill")
    assert Verdict.PASS is evaluate(deaf._replace(wish=WANTED), reasons).verdict


def test_tables_that_are_not_watched_are_told_and_hold_nobody_up() -> None:
    """Perhaps nobody writes SQL of his own."""
    report = evaluate(GOOD._replace(unwatched=["clients"]), {})

    [told] = [each for each in report.checks if each.name == "plain_sql"]
    assert (Verdict.PASS, Verdict.INCONCLUSIVE, False) == (report.verdict, told.verdict, told.is_asked)
    assert "control watch" in told.reason
    assert "" == evaluate(GOOD._replace(unwatched=[]), {}).checks[-1].reason
