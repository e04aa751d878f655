"""How progress looks on a terminal and elsewhere."""

import io

import pytest

from kvmigrate.cli.progress import ProgressLine


class Terminal(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self) -> bool:
        """Return that it is."""
        return True


@pytest.fixture(autouse=True)
def no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the surroundings say of CI does not count."""
    monkeypatch.delenv("CI", raising=False)


def test_elsewhere_it_is_at_most_a_line_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls within a second of a line print nothing."""
    now = [100.0]
    monkeypatch.setattr("kvmigrate.cli.progress.time.monotonic", lambda: now[0])
    out = io.StringIO()
    with ProgressLine(out) as progress:
        for done in range(0, 2501, 100):
            now[0] += 0.125
            progress("sweep 1", done, 2500, 1000.0)

    assert [
        "sweep 1: 700 of 2,500  1,000/s",
        "sweep 1: 1,500 of 2,500  1,000/s",
        "sweep 1: 2,300 of 2,500  1,000/s",
    ] == (out.getvalue().splitlines())


def test_an_unknown_total_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that cannot count has a number only."""
    monkeypatch.setattr("kvmigrate.cli.progress._PAUSE_S", 0)
    out = io.StringIO()
    with ProgressLine(out) as progress:
        progress("export", 1234, None)

    assert "export: 1,234\n" == out.getvalue()


def test_on_a_terminal_it_is_a_bar() -> None:
    """The bar has the phase, both numbers and the rate, and survives a store that grows."""
    out = Terminal()
    with ProgressLine(out) as progress:
        progress("compare", 10, 100, 5.0)
        progress("compare", 120, 100, 5.0)

    assert "compare" in out.getvalue()
    assert "120/120" in out.getvalue()


def test_continuous_integration_has_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build log gets no bar, though it says it is a terminal."""
    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr("kvmigrate.cli.progress._PAUSE_S", 0)
    out = Terminal()
    with ProgressLine(out) as progress:
        progress("compare", 10, 100, 5.0)

    assert "compare: 10 of 100  5/s\n" == out.getvalue()
