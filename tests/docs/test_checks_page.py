"""The page that says what each check can catch, against the faults that the tests inject."""

import re
from pathlib import Path

from tests.acceptance import test_corruptions
from tests.acceptance.test_corruptions import COMPARED, FAULTS


def rows(repository: Path) -> list[list[str]]:
    """The cells of the page's table."""
    page = (repository / "docs" / "reference" / "checks.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_every_line_is_backed_by_faults_and_every_fault_stands_in_a_line(repository: Path) -> None:
    """By the names of classes and of tests; only what no check can catch has none."""
    named: list[str] = []
    for fault, sweep, *_, injected in rows(repository):
        names = re.findall(r"`([^`]+)`", injected)
        assert bool(names) == sweep.startswith("yes"), fault
        named += names
    tests = {name for name in named if name.startswith("test_")}

    assert {name for name in tests if callable(getattr(test_corruptions, name, None))} == tests
    assert sorted(FAULTS) == sorted(name for name in named if name not in tests)


def test_the_causes_are_those_that_are_named(repository: Path) -> None:
    """A line promises the causes that its classes may have, no more and no less."""
    for fault, *_, causes, injected in rows(repository):
        classes = [name for name in re.findall(r"`([^`]+)`", injected) if name in FAULTS]
        if classes:
            wanted = frozenset[str]().union(*(FAULTS[name].causes for name in classes))
            assert wanted == set(re.findall(r"[a-z_]+", causes)) - {"and", "one", "of", "them"}, fault


def test_a_backfill_finds_what_the_page_says(repository: Path) -> None:
    """A line of classes says yes where the tests see a backfill mend them."""
    for fault, _, _, relay, *_, injected in rows(repository):
        classes = {name for name in re.findall(r"`([^`]+)`", injected) if name in FAULTS}
        if classes:
            assert relay.startswith("yes") == (classes <= COMPARED), fault
            assert classes <= COMPARED or not classes & COMPARED, fault
