"""The page of the protocol names tests: each of them exists, and none of the live fault tests is left out."""

import ast
import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS

PAGE = DOCS / "discussions" / "the-protocol.md"
TESTS = DOCS.parent / "tests"
HEADINGS = ("| promise | under | shown by |", "| assumption | shown by |", "| what | how it is noticed | shown by |")

_NAMED = re.compile(r"\[(test_\w+)\]\(([^)]+\.py)\)")
_PROMISE = r"^- \*\*([A-Z]+)\*\*:"
_ASSUMPTION = r"^- \*\*(A\d)\*\* "


def functions(file: Path) -> set[str]:
    """Return the names of the tests in a file."""
    found = ast.parse(file.read_text(encoding="utf-8")).body
    return {each.name for each in found if isinstance(each, ast.FunctionDef) and each.name.startswith("test_")}


def table(heading: str) -> list[list[str]]:
    """Return the cells of the rows below a heading."""
    _, found, rest = PAGE.read_text(encoding="utf-8").partition(heading + "\n")
    assert found, f"the page has no table {heading}"
    lines = rest.splitlines()[1:]
    end = next((place for place, line in enumerate(lines) if not line.startswith("|")), len(lines))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:end]]


def named() -> set[tuple[str, Path]]:
    """Return the tests that the page names, with their files."""
    found = _NAMED.findall(PAGE.read_text(encoding="utf-8"))
    return {(name, (PAGE.parent / path).resolve()) for name, path in found}


@pytest.mark.parametrize("heading", HEADINGS)
def test_every_row_names_tests_that_exist(heading: str) -> None:
    """A test that was renamed or removed leaves a promise that nothing shows."""
    rows = table(heading)
    assert len(rows) >= len(("A1", "A2", "A3", "A4", "A5"))
    missing = []
    for row in rows:
        tests = _NAMED.findall(row[-1])
        assert tests, f"no test shows {row[0]}"
        for name, path in tests:
            file = (PAGE.parent / path).resolve()
            if not file.exists() or name not in functions(file):
                missing.append(f"{row[0]}: {name} in {path}")
    assert [] == missing


def test_every_promise_is_shown_on_real_servers() -> None:
    """Each name of the list at the top has a row, and each assumption, too."""
    text = PAGE.read_text(encoding="utf-8")
    promises, assumptions = (set(re.findall(pattern, text, re.MULTILINE)) for pattern in (_PROMISE, _ASSUMPTION))
    shown = {name.strip() for row in table(HEADINGS[0]) for name in row[0].split(",")}
    assert promises <= shown, promises - shown
    assert sorted(assumptions) == [row[0] for row in table(HEADINGS[1])]


def test_every_live_fault_test_has_a_row() -> None:
    """What is tested with so much effort is said, too."""
    files = [*(TESTS / "faults").glob("test_live_*.py"), TESTS / "acceptance" / "test_whole_migration.py"]
    tests = {(name, file.resolve()) for file in files for name in functions(file)}
    assert set() == tests - named()
