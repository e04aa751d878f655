"""Reports as text, Markdown and HTML: complete, safe, and the picture adds up."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from kvmigrate.consistency.sample_report import SampleReport
from kvmigrate.consistency.strata import Stratum
from kvmigrate.model import Bin
from kvmigrate.report.backfill import describe_backfill
from kvmigrate.report.bars import render_bars
from kvmigrate.report.document import Bars, Code, Document, Facts, Grid, Heading, Line, Sum, Tone, counted
from kvmigrate.report.export import describe_export
from kvmigrate.report.html import render_html
from kvmigrate.report.markdown import render_markdown
from kvmigrate.report.sample import describe_sample
from kvmigrate.report.text import render_text
from kvmigrate.report.verify import describe_verify
from kvmigrate.report.write import write_report

HOSTILE = 'gift:<script>alert("x")</script>|`#*'


def backfill(**changes: Any) -> dict[str, Any]:
    """Return the JSON of a backfill whose bins add up."""
    return {
        "scope": "shop",
        "fingerprint": "ab" * 32,
        "run_id": 3,
        "started_at": "2026-01-01T00:00:00.000Z",
        "duration_s": 2.0,
        "warnings": [],
        "next": ["kvmigrate verify"],
        "source": "redis://localhost/0",
        "target": "postgresql://localhost/shop",
        "scanned": 1015,
        "written": 1000,
        "waiting": 2,
        "quarantined": 3,
        "left_in_kv": 4,
        "unmatched": 5,
        "vanished": 1,
        "entities": {"gift": {"written": 1000, "waiting": 2, "quarantined": 3, "vanished": 1}},
        "rows": {"gifts": 1000},
        "rest_bytes": {"gifts": 12345},
        "quarantine_reasons": {"type": 2, "nul": 1},
        "waiting_reasons": {"missing-parent": 2},
        "left_reasons": {"short-lived": 4},
        "unmatched_examples": ["nobody"],
        "examples": [
            {"key": HOSTILE, "path": "$.price", "reason": "type", "message": "not numeric"},
            {"key": "gift:9", "path": "$", "reason": "missing-parent", "message": "no client"},
        ],
        "pointers": [{"name": "gifts:all", "listed": 9, "real": 10, "dangling": 1, "unlisted": 2}],
        "normalised": {"rest: drop": 7},
        "moving": False,
        "complete": True,
        "where": "",
        "dry_run": False,
        "resumed_pages": 0,
        "not_resumed": False,
        "live": False,
        "touched": 0,
        "conflicts": [],
        "sweeps": [{}, {}],
        "errors": [],
        **changes,
    }


class Tags(HTMLParser):
    """Collects tags, their attributes, and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.text += data


@pytest.mark.parametrize("render", [render_text, render_markdown, render_html])
def test_every_form_has_every_number(render: Any) -> None:
    """Bins, rows, bytes, reasons, lists and the next command stand in all forms."""
    shown = render(describe_backfill(backfill()))

    for part in ("1,015", "1,000", "12,345", "missing", "short", "nobody", "gifts:all", "kvmigrate verify", "gift:9"):
        assert part in shown, part


def test_html_is_one_page_without_anything_outside() -> None:
    """No script, no link, no address is in the page; what a key says stays text."""
    page = render_html(describe_backfill(backfill()))
    tags = Tags(page)

    assert set() == {"script", "link", "img", "iframe"} & set(tags.tags)
    assert [] == [value for name, value in tags.attributes if name in {"src", "href", "onload", "onclick"}]
    assert "url(" not in page
    assert "@import" not in page
    assert HOSTILE in tags.text
    assert "prefers-color-scheme: dark" in page


def test_the_picture_is_one_bar_per_entity() -> None:
    """Each bar has its parts in order, fills its length exactly, and says its total."""
    bars = Bars("Bins", ["a", "b", "c"], [("all", [999_999, 1, 0]), ("none", [0, 0, 0]), ("half", [5, 5, 0])])
    root = ET.fromstring(render_bars(bars))  # noqa: S314 - made one line above
    rects = [
        {name: each.get(name) or "" for name in ("x", "y", "width", "fill")}
        for each in root.iter()
        if each.tag.endswith("rect")
    ]
    by_row = {y: [rect for rect in rects if rect["y"] == y] for y in {rect["y"] for rect in rects}}

    assert 2 == len(by_row)
    for row in by_row.values():
        assert ["var(--part-0)", "var(--part-1)"] == [rect["fill"] for rect in row]
        assert 170 == float(row[0]["x"])
        assert 760 == pytest.approx(float(row[-1]["x"]) + float(row[-1]["width"]), abs=0.2)
        assert min(float(rect["width"]) for rect in row) >= 4
    assert "1,000,000" in [each.text for each in root.iter()]


def test_the_picture_has_a_colour_for_each_bin() -> None:
    """The page defines as many colours as there are bins, in light and in dark."""
    page = render_html(describe_backfill(backfill()))

    for place in range(len(Bin)):
        assert 2 == len(re.findall(rf"--part-{place}: #[0-9a-f]{{6}}", page))


def test_markdown_cannot_be_broken_by_a_key() -> None:
    """Bars, backticks and tags of a key are escaped; every row has as many cells as its head."""
    shown = render_markdown(describe_backfill(backfill()))

    assert "<script>" not in shown
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    assert {4} == {len(re.findall(r"(?<!\\)\|", row)) for row in rows if "script" in row}


def test_bins_that_do_not_add_up_are_said() -> None:
    """A sum that is wrong is not called right."""
    right = render_text(describe_backfill(backfill()))
    wrong = render_text(describe_backfill(backfill(written=999)))
    failed = render_text(describe_backfill(backfill(errors=["rows of gifts: 999, expected 1000"])))

    assert "The bins add up;" in right
    assert "The bins add up to 1,014: counts disagree" in wrong
    assert "expected 1000" in failed
    assert "The bins add up;" not in failed


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "found nothing that differed"),
        ({"moving": True}, "As of a moving store"),
        ({"complete": False, "moving": True}, "Only a part of the store"),
        ({"sweeps": [{}]}, "counted no change"),
        ({"live": True, "touched": 3}, "3 keys differed and were brought over"),
        ({"live": True, "touched": 1}, "1 key differed and was brought over"),
        ({"dry_run": True}, "A dry run"),
    ],
)
def test_the_report_says_how_sure_it_is(changes: dict[str, Any], said: str) -> None:
    """A second sweep without a finding is a proof, or the store's own count of changes."""
    assert said in render_text(describe_backfill(backfill(**changes)))


def test_a_quiet_backfill_is_short() -> None:
    """Parts that have nothing to say are not there."""
    counts = ("quarantine_reasons", "waiting_reasons", "left_reasons", "normalised", "entities")
    quiet: dict[str, Any] = {name: {} for name in counts}
    quiet |= {name: [] for name in ("pointers", "examples", "unmatched_examples", "next")}
    shown = render_text(describe_backfill(backfill(**quiet, quarantined=0, written=1003, duration_s=0)))

    for part in ("Quarantined", "Index lists", "Losses", "Next", "a second\n"):
        assert part not in shown


def test_text_for_a_terminal_has_colours_and_the_same_words() -> None:
    """Escape sequences are all that colours add."""
    document = Document("Title")
    document.add(
        Heading("Part"),
        Line("good", Tone.GOOD),
        Facts([("name", "value")]),
        Grid(["left", "right>"], [["a", "1"], ["bcd", "20"]], [Tone.PLAIN, Tone.BAD]),
        Sum(3, "all", [("one", 1, "first"), ("two", 2, "second")]),
        Code("type this\nand this"),
        Bars("picture", ["a"], [("b", [1])]),
    )
    plain, coloured = render_text(document), render_text(document, colours=True)

    assert "\x1b[31m" in coloured
    assert plain == re.sub(r"\x1b\[\d+m", "", coloured).replace(" \n", "\n")
    assert "  a         1" in plain
    assert "    and this" in plain


def test_a_long_cell_is_cut() -> None:
    """One hostile key does not make every line of the table long."""
    grid = Grid(["key"], [["x" * 5000], ["a\nb"]])
    document = Document("")
    document.add(grid)

    shown = render_text(document)
    assert max(map(len, shown.splitlines())) < 100
    assert "  a b\n" in shown


def test_counts_have_their_noun() -> None:
    """One item, two items, four entries."""
    assert ["1 item", "2,000 items", "0 entries"] == [
        counted(1, "item"),
        counted(2000, "item"),
        counted(0, "entry", "entries"),
    ]


def test_a_report_of_broken_text_is_written(tmp_path: Path) -> None:
    """Half a surrogate pair in a message does not stop the report; JSON has it exactly."""
    example = {"key": "gift:1", "path": "$", "reason": "type", "message": "half \ud83d"}
    report = backfill(examples=[example])

    paths = write_report(tmp_path / "new" / "folder", report, describe_backfill(report))

    assert ["report.txt", "report.json", "report.md", "report.html"] == [path.name for path in paths]
    assert report == json.loads(paths[1].read_text(encoding="utf-8"))
    assert all("gift:1" in path.read_text(encoding="utf-8") for path in paths)


def test_verify_says_its_verdict_first() -> None:
    """The title is the verdict: no divergence, how many, or nothing compared."""
    counts = dict.fromkeys(("missing", "extra", "different", "tolerated", "pending", "not_comparable"), 0)
    report = {
        **backfill(),
        **counts,
        "compared": 5,
        "matched": 5,
        "causes": {},
        "tolerances": {},
        "examples": [],
        "verified_up_to": "z",
    }
    example = {"key": "k", "path": "$", "table": "t", "column": "", "cause": "stale", "detail": "d"}

    assert "5 items compared, no divergence" in describe_verify(report).title
    assert "disagree on 1 item" in describe_verify({**report, "missing": 1}).title
    assert "nothing could be compared" in describe_verify({**report, "compared": 0, "matched": 0}).title
    shown = render_text(describe_verify({**report, "examples": [example], "causes": {"stale": 1}, "complete": False}))
    assert "stale" in shown
    assert "covered up to the key 'z'" in shown
    assert "drop" in render_text(describe_verify({**report, "tolerances": {"rest: drop": 1}}))


def test_an_incomplete_export_names_what_is_missing() -> None:
    """Counts by reason and the first keys."""
    report = {
        **backfill(),
        **dict.fromkeys(("exported", "read", "rebuilt", "from_quarantine"), 1),
        "from": "target",
        "output": "stdout",
        "unreadable": 1,
        "missing": 1,
        "missing_reasons": {"it is waiting": 1},
        "examples": [{"key": "gift:7", "reason": "it is waiting"}],
        "complete": False,
    }

    shown = render_text(describe_export(report))
    assert "Incomplete: 1 value could not be written." in shown
    assert "gift:7" in shown
    assert "1 key that no item can have" in shown
    assert "Cut short" in render_text(describe_export({**report, "missing": 0}))


def test_a_sample_goes_on_from_what_was_kept_of_it() -> None:
    """Entities, tables and columns, ages and sizes stand as they stood; populations are counted anew."""
    found = SampleReport(1)
    found.strata["client"].counts.update({"matched": 5, "different": 2, "pending": 1})
    found.kinds["size"]["under 1 kB"].counts.update({"matched": 5, "different": 2})
    found.places.update({("client", "clients", ""): 2, ("client", "clients", "name"): 1})
    found.causes["changed"] += 3

    again = SampleReport(1)
    again.take(found.evidence())

    assert found.to_json() == again.to_json()


def test_of_many_tenants_the_worst_are_shown() -> None:
    """Ten, those that diverge first, and how many more there are; of a few all, in the order of their names."""
    found = SampleReport(1)
    for number in range(300):
        stratum = found.kinds["tenant"][f"tenant-{number:03}"]
        stratum.counts.update({"matched": 5, "different": int(number == 222)})
    found.strata["client"] = Stratum(300)
    report = {**backfill(), **found.to_json()}

    shown = render_text(describe_sample(report))

    tenants = [line for line in shown.splitlines() if "tenant-" in line]
    assert (10, True) == (len(tenants), "tenant-222" in tenants[0])
    assert "290 more, none worse than these" in shown
    few = render_text(describe_sample({**report, "kinds": report["kinds"][:3]}))
    assert "more, none worse" not in few
