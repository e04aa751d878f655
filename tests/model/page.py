"""The tables of the protocol's page, written from the catalogue: ``python -m tests.model.page``."""

from __future__ import annotations

from pathlib import Path

from tests.model.catalogue import SCENARIOS, VARIANTS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "discussions" / "the-protocol.md"

SCENARIO_HEADER = "| scenario | what happens | states |"
VARIANT_HEADER = "| variant | instead of the rule | scenario | breaks |"


def scenario_rows() -> list[list[str]]:
    """Return the cells of the table of scenarios."""
    return [[each.code, each.about, f"{each.states:,}".replace(",", " ")] for each in SCENARIOS]


def variant_rows() -> list[list[str]]:
    """Return the cells of the table of variants."""
    return [[each.code, each.about, each.scenario.code, each.breaks or "none"] for each in VARIANTS]


def written(text: str) -> str:
    """Return the page's text with both tables as the catalogue has them."""
    for header, rows in ((SCENARIO_HEADER, scenario_rows()), (VARIANT_HEADER, variant_rows())):
        before, _, after = text.partition(header + "\n")
        lines = after.splitlines()
        rest = next((place for place, line in enumerate(lines) if not line.startswith("|")), len(lines))
        table = [header, "|---" * len(rows[0]) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
        text = before + "\n".join([*table, *lines[rest:]]) + "\n"
    return text


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
