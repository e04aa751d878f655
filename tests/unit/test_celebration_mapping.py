"""The celebration's mapping at work on the celebration's store: every item goes where the books say."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kvmigrate.config import read_settings
from kvmigrate.demo.celebration import Celebration, mapping_path
from kvmigrate.model import Bin, Item, RowSet
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import Lens, PageRows, compile_mapping

SEED, SIZE = 23, 3000


@pytest.fixture(scope="module")
def lens() -> Lens:
    """The example's mapping, compiled."""
    return compile_mapping(load_mapping(mapping_path()))


@pytest.fixture(scope="module")
def shop() -> tuple[Celebration, list[Item]]:
    """A shop with complete books, and its items."""
    celebration = Celebration(SEED, SIZE)
    return celebration, list(celebration)


@pytest.fixture(scope="module")
def page(lens: Lens, shop: tuple[Celebration, list[Item]]) -> PageRows:
    """What the whole shop becomes, taken as one page."""
    return lens.page(shop[1])


def value_of(item: Item) -> Any:
    """Return the JSON value, exact, and whether it was double encoded."""
    assert isinstance(item.value, bytes)
    outer = json.loads(item.value, parse_float=str)
    return ("double", json.loads(outer, parse_float=str)) if isinstance(outer, str) else ("plain", outer)


def test_every_item_ends_where_the_books_say(page: PageRows, shop: tuple[Celebration, list[Item]]) -> None:
    """What needs no other item to be decided is decided as the books say."""
    bins = shop[0].manifest.bins

    assert bins[Bin.QUARANTINED] == len(page.refused)
    assert bins[Bin.LEFT_IN_KV] == len(page.left) + len(page.pointers)
    assert bins[Bin.UNMATCHED] == len(page.unmatched)
    assert bins[Bin.WRITTEN] + bins[Bin.WAITING] == len(page.accepted)


def test_every_refusal_has_the_reason_of_its_defect(page: PageRows, shop: tuple[Celebration, list[Item]]) -> None:
    """Reasons and their counts are those of the injected defects, and the examples are among them."""
    books = shop[0].manifest
    refused = {item.key: str(refusal.reason) for item, refusal in page.refused}

    assert dict(books.reasons) == Counter(refused.values())
    for name, defect in books.to_json()["defects"].items():
        if defect["bin"] == Bin.QUARANTINED:
            assert {defect["reason"]} == {refused[key] for key in defect["examples"]}, name


def test_rows_are_as_many_as_the_books_say(page: PageRows, shop: tuple[Celebration, list[Item]]) -> None:
    """Tables of entities whose items never wait have exactly the rows of the books; the others no fewer."""
    rows = shop[0].manifest.rows

    assert set(rows) == set(page.row_counts)
    for table in ("catalogs", "site_product_exclusions", "email_logs", "analytics_events"):
        assert rows[table] == page.row_counts[table]
    assert all(rows[table] <= count for table, count in page.row_counts.items())


def test_rest_weighs_what_the_books_say(page: PageRows, shop: tuple[Celebration, list[Item]]) -> None:
    """Rest holds unmapped members and residue and no byte more, where no item waits."""
    assert shop[0].manifest.rest_bytes["catalogs"] == page.rest_bytes["catalogs"]


def test_every_accepted_item_comes_back_as_it_was(lens: Lens, shop: tuple[Celebration, list[Item]]) -> None:
    """Rows rebuild the key, the value and the expiry of every item of the shop."""
    rebuilt = 0
    for item in shop[1]:
        route = lens.route(item.key)
        row_set = lens.forward(item)
        if route.entity is None or not isinstance(row_set, RowSet) or not row_set.rows:
            continue
        rows: dict[str, list[Sequence[Any]]] = defaultdict(list)
        for row in row_set.rows:
            rows[row.table].append(row.values)
        back = lens.backward(route.entity, None, rows)

        assert item.key == back.key
        assert item.expires_at_ms == back.expires_at_ms
        assert value_of(item) == value_of(back)
        rebuilt += 1

    assert rebuilt > SIZE * 0.9


def test_the_example_folder_needs_no_options(repository: Path) -> None:
    """The example's settings are complete and name the example's mapping."""
    settings = read_settings(folder=repository / "examples" / "celebration", environment={})

    assert settings.need_mapping().samefile(mapping_path())
    assert settings.need_source().startswith("redis://")
    assert settings.need_target().startswith("postgresql://")
