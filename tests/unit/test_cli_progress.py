"""How progress looks on a terminal, elsewhere, and beside JSON: one stream, three ways."""

import io
import json
from pathlib import Path

import pytest

from kvmigrate.backfill.pace import Knobs, State
from kvmigrate.backfill.progress import Event
from kvmigrate.cli.progress import ProgressLine, text_line
from tests.fix_cli import check_schema

PAUSED = Event("sweep 1", 10, 100, state=State.PAUSED, reason="until it is let go")


class Terminal(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self) -> bool:
        """Return that it is."""
        return True


@pytest.fixture(autouse=True)
def no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the surroundings say of CI does not count."""
    monkeypatch.delenv("CI", raising=False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set."""
    now = [100.0]
    monkeypatch.setattr("kvmigrate.cli.progress.time.monotonic", lambda: now[0])
    return now


def test_elsewhere_it_is_at_most_a_line_a_second(clock: list[float]) -> None:
    """Calls within a second of a line print nothing."""
    out = io.StringIO()
    with ProgressLine(out) as progress:
        for done in range(0, 2501, 100):
            clock[0] += 0.125
            progress(Event("sweep 1", done, 2500, 1000.0, (2500 - done) / 1000))

    assert [
        "sweep 1: 700 of 2,500  1,000/s  2 s left",
        "sweep 1: 1,500 of 2,500  1,000/s  1 s left",
        "sweep 1: 2,300 of 2,500  1,000/s  0 s left",
    ] == (out.getvalue().splitlines())


@pytest.mark.parametrize("as_json", [False, True])
def test_a_new_state_is_told_at_once(clock: list[float], *, as_json: bool) -> None:
    """A pause does not wait for the next second; that it lasts does."""
    del clock
    out = io.StringIO()
    with ProgressLine(out, as_json=as_json) as progress:
        progress(Event("sweep 1", 1, 100))
        progress(PAUSED)
        progress(PAUSED)
        progress(Event("sweep 1", 11, 100))

    assert 2 == len(out.getvalue().splitlines())


def test_beside_json_it_is_json(monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    """Each line is an object with every member, also on a terminal, as its schema says."""
    monkeypatch.setattr("kvmigrate.cli.progress._PAUSE_S", 0)
    out = Terminal()
    with ProgressLine(out, as_json=True) as progress:
        progress(PAUSED)
        progress(Event("sweep 1", 11, 100, 5.0, 17.8, knobs=Knobs(rate=5)))
        progress(Event("rows", 11))

    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    for line in lines:
        check_schema(repository, "progress", line)
    assert ["paused", "running", "running"] == [line["state"] for line in lines]
    assert {"rate": 5, "max_lag_s": None, "max_active": None, "paused": False} == lines[1]["knobs"]
    assert (None, None, 0) == tuple(lines[2][each] for each in ("total", "eta_s", "per_second"))


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Event("export", 1234), "export: 1,234"),
        (Event("sweep 1", 5, 10, 2.0, 90), "sweep 1: 5 of 10  2/s  2 min left"),
        (Event("sweep 1", 5, 10, 2.0, 9000), "sweep 1: 5 of 10  2/s  2.5 h left"),
        (PAUSED, "sweep 1: 10 of 100  paused: until it is let go"),
        (Event("waiting items", 0, state=State.FINISHING), "waiting items: 0  finishing"),
    ],
)
def test_a_line_leaves_out_what_is_not_known(event: Event, line: str) -> None:
    """No total, no rate, no time to the end, no reason: no words."""
    assert line == text_line(event)


def test_on_a_terminal_it_is_a_bar() -> None:
    """The bar has the phase, both numbers, the rate and what it waits for, and survives a store that grows."""
    out = Terminal()
    with ProgressLine(out) as progress:
        progress(Event("compare", 10, 100, 5.0))
        progress(Event("compare", 120, 100, 5.0, state=State.PAUSED, reason="[why]"))

    assert "compare" in out.getvalue()
    assert "120/120" in out.getvalue()
    assert "paused: [why]" in out.getvalue()


def test_continuous_integration_has_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build log gets no bar, though it says it is a terminal."""
    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr("kvmigrate.cli.progress._PAUSE_S", 0)
    out = Terminal()
    with ProgressLine(out) as progress:
        progress(Event("compare", 10, 100, 5.0))

    assert "compare: 10 of 100  5/s\n" == out.getvalue()
