"""The protocol's page says what the models show."""

from __future__ import annotations

import re

from tests.docs.pages import table
from tests.model.catalogue import VARIANTS
from tests.model.page import PAGE, SCENARIO_HEADER, VARIANT_HEADER, scenario_rows, variant_rows, written


def test_the_table_of_scenarios_is_that_of_the_models() -> None:
    """Each scenario stands on the page with its number of states; `python -m tests.model.page` writes it."""
    assert scenario_rows() == table(PAGE, SCENARIO_HEADER)


def test_the_table_of_variants_is_that_of_the_models() -> None:
    """Each naive variant stands on the page with the promise that it breaks."""
    assert variant_rows() == table(PAGE, VARIANT_HEADER)


def test_the_tables_can_be_written_again() -> None:
    """Writing them changes nothing on a page that is right, and mends one that is not."""
    text = PAGE.read_text(encoding="utf-8")

    assert text == written(text)
    assert text == written(text.replace("| N01 |", "| N00 |").replace("| A |", "| Z |", 1))


def test_every_promise_is_explained() -> None:
    """A promise that a variant breaks stands in the page's list, and in its table of what shows it."""
    text = PAGE.read_text(encoding="utf-8")
    promises = {variant.breaks for variant in VARIANTS} - {""}

    assert promises <= set(re.findall(r"^- \*\*([A-Z]+)\*\*", text, re.MULTILINE))
    shown = " ".join(row[0] for row in table(PAGE, "| what | shown by |"))
    assert [] == [promise for promise in sorted(promises) if promise not in shown]
