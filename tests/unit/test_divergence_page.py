"""The page with pictures of divergence: right with no measurement, one, many, and one that could compare nothing."""

import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from kvmigrate.report.band import render_band
from kvmigrate.report.bars import render_bars
from kvmigrate.report.divergence import describe_divergence
from kvmigrate.report.document import Band, Bars
from kvmigrate.report.html import render_html


def measured(number: int, *, n: int = 3000, divergent: int = 0, **more: Any) -> dict[str, Any]:
    """A measurement as the control schema recorded it."""
    return {
        "kind": "sample",
        "at": f"2026-03-01T{number // 60:02d}:{number % 60:02d}:00Z",
        "n": n,
        "population": 20_000,
        "divergent": divergent,
        "lower_pct": 0.0,
        "upper_pct": 0.1 if n else 100.0,
        "worst_pct": 0.2 if n else 100.0,
        "causes": {"stale": divergent} if divergent else {},
        **more,
    }


def page(*measurements: dict[str, Any], limit: float | None = 0.5) -> str:
    """The page of such measurements."""
    report = {"scope": "shop", "unmended": 0, "measurements": measurements, "max_divergence_pct": limit}
    return render_html(describe_divergence(report))


def svgs(text: str) -> list[ET.Element]:
    """The pictures of a page."""
    return [ET.fromstring(each) for each in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]  # noqa: S314 - our own


def inside(picture: ET.Element) -> bool:
    """Whether every mark lies within the picture."""
    _, _, width, height = map(float, picture.attrib["viewBox"].split())
    across = [
        float(each.attrib[name]) for each in picture.iter() for name in ("x1", "x2", "cx", "x") if name in each.attrib
    ]
    down = [
        float(each.attrib[name]) for each in picture.iter() for name in ("y1", "y2", "cy", "y") if name in each.attrib
    ]
    return all(0 <= x <= width for x in across) and all(0 <= y <= height for y in down)


def test_nothing_measured_is_nothing_good() -> None:
    """There is no picture, and no cause is said to be absent."""
    shown = page()
    assert [] == svgs(shown)
    assert ("good" in re.findall(r'<p class="(\w+)"', shown), "Causes" in shown) == (False, False)


def test_what_could_compare_nothing_is_not_green() -> None:
    """Its interval is all there is, without a dot for what was found."""
    shown = page(measured(1, n=0))
    [picture] = svgs(shown)
    assert [] == list(picture.iter("{http://www.w3.org/2000/svg}circle"))
    assert "of 20,000 keys none could be compared" in shown
    assert ["notice", "notice"] == re.findall(r'<p class="(\w+)"', shown)
    assert {"0 %", "6.2 %", "25 %", "100 %", "limit 0.5 %"} < {each.text for each in picture.iter()}


@pytest.mark.parametrize(("count", "dots"), [(1, 1), (2, 2), (500, 60)])
def test_every_measurement_has_its_place(count: int, dots: int) -> None:
    """In order, within the picture, with the limit; one stands in the middle over its time; of many the newest."""
    shown = page(*(measured(number, divergent=number % 2) for number in range(count)))
    picture = svgs(shown)[0]
    circles = [float(each.attrib["cx"]) for each in picture.iter("{http://www.w3.org/2000/svg}circle")]
    assert (dots, sorted(set(circles))) == (len(circles), circles)
    assert inside(picture)
    assert "limit 0.5 %" in [each.text for each in picture.iter()]
    assert ("the last 60 of 500" in shown) is (count == 500)
    if count == 1:
        [label] = [each for each in picture.iter() if each.text == "2026-03-01T00:00:00Z"]
        assert ("middle", circles[0]) == (label.attrib["text-anchor"], float(label.attrib["x"]))


def test_a_small_share_stays_apart_from_nothing_beside_a_large_one() -> None:
    """One tiny sample of long ago does not press limit and measurements flat."""
    points = [("a", 0.0, 12.0, 60.0), ("b", 0.0, 0.0, 0.1), ("c", 0.0, 0.05, 0.1)]
    picture = ET.fromstring(render_band(Band("", "%", points, 0.1)))  # noqa: S314 - our own
    heights = [float(each.attrib["cy"]) for each in picture.iter("{http://www.w3.org/2000/svg}circle")]
    assert heights[1] - heights[2] > 4


def test_causes_are_as_long_as_they_are_many_and_each_has_a_colour() -> None:
    """However many causes there are."""
    causes = {f"cause{number}": number for number in range(1, 13)}
    shown = page(measured(1, divergent=12, causes=causes))
    bars = [each.attrib for each in svgs(shown)[1].iter("{http://www.w3.org/2000/svg}rect")]
    assert {"var(--part-0)"} == {each["fill"] for each in bars}
    widths = [float(each["width"]) for each in bars]
    assert (12, sorted(widths, reverse=True)) == (len(widths), widths)
    assert widths[0] == pytest.approx(12 * widths[-1], abs=1)


def test_a_scaled_bar_of_many_parts_still_shows_each() -> None:
    """The shortest bar has room for the thinnest parts."""
    rows = [("long", [1_000_000, 0, 0]), ("short", [1, 1, 1])]
    picture = ET.fromstring(render_bars(Bars("", ["a", "b", "c"], rows, is_scaled=True)))  # noqa: S314 - our own
    assert min(float(each.attrib["width"]) for each in picture.iter("{http://www.w3.org/2000/svg}rect")) >= 4


def test_the_slowest_strata_stand_first() -> None:
    """By the share of their keys that stayed on their way; those without one are left out."""
    strata = [
        {
            "entity": "fast",
            "n": 900,
            "divergent": 0,
            "lower_pct": 0,
            "upper_pct": 0.3,
            "pending": 0,
            "not_comparable": 0,
        },
        {
            "entity": "slow",
            "n": 90,
            "divergent": 2,
            "lower_pct": 0,
            "upper_pct": 9.3,
            "pending": 9,
            "not_comparable": 1,
        },
    ]
    kinds = [
        {"by": "size", "name": "small", "n": 990, "divergent": 2, "lower_pct": 0, "upper_pct": 1.0, "undecided": 10}
    ]
    shown = page(measured(1, strata=strata, kinds=kinds))
    told = shown.partition("Slowest to agree")[2]
    assert ["entity slow", "size small"] == re.findall(r"<td>([^<]+)</td>", told)
    assert "10 %" in told
    quick = page(measured(1, strata=strata[:1]))
    assert "No key was on its way" in quick
