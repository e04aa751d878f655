"""What the demo tells of reads that moved, and of a machine where they cannot."""

from typing import Any

import pytest

from kvmigrate.config import Settings
from kvmigrate.demo import shift
from kvmigrate.demo.shift_summary import describe_shift

SEEN: dict[str, Any] = {
    "note": "",
    "steps": [{"percent": 0, "requests": 1_000, "failed": 0}, {"percent": 100, "requests": 5, "failed": 0}],
    "status": [
        {
            "endpoint": "get.gifts",
            "requests": 1_005,
            "served_pct": None,
            "fallbacks": {"error": 5},
            "verdict": "demoted",
            "reason": "1 process reads the store by itself",
        }
    ],
    "rollback": {"places": [{"name": "a", "done": True, "why": ""}], "took_ms": 71},
    "requests": 1_005,
    "failed": 0,
}


def lines(reads: dict[str, Any] | None) -> list[str]:
    """The texts of the lines."""
    return [each.text for each in describe_shift(reads) if hasattr(each, "text")]


def test_what_was_seen_is_told() -> None:
    """The shift, the rollback, and that no request failed; nothing where it was not asked."""
    told = " ".join(lines(SEEN))

    assert "Shifted 0 % (1,000 requests), 100 % (5 requests)" in told
    assert "kept in 1 place: the last read of tables was 71 ms later" in told
    assert "None of 1,005 requests failed." in told
    assert "3 of 1,005 requests failed." in " ".join(lines({**SEEN, "failed": 3}))
    assert [] == lines(None)


@pytest.mark.parametrize(
    ("source", "said"),
    [("postgresql://h/d?table=kv", "where the store is a Redis"), ("redis://h", "pip install 'kvmigrate[demo]'")],
)
def test_where_reads_cannot_move_the_demo_says_why(monkeypatch: pytest.MonkeyPatch, source: str, said: str) -> None:
    """And goes on."""
    monkeypatch.setattr("kvmigrate.demo.shift.importlib.util.find_spec", lambda _: None)

    note = shift._why_not(Settings(source))

    assert said in note
    assert f"Not here: {note}." in lines({"note": note})
