"""The generated functions against the exact way: the same rows to the last byte of meaning, or no rows at all."""

import random
from collections.abc import Sequence
from typing import Any

from hypothesis import given

from kvmigrate.model import Item, RowSet
from kvmigrate.transform.lens import Lens, PageRows, compile_mapping
from kvmigrate.transform.lens.page import PageBuilder, Routed
from tests.copy_format import read_rows
from tests.strategies_mapping import Plan, make_item, make_plan
from tests.unit.test_laws import law, seeds


def _functions(lens: Lens, item: Item) -> list[tuple[str, PageRows, Sequence[Routed]]]:
    """What each generated function of the item's entity makes of it alone: its name, the page, what it hands over."""
    found = lens._router.find(item.key)
    fast = lens._fast.get(found[0].number) if found is not None else None
    if found is None or fast is None:
        return []
    out: list[tuple[str, PageRows, Sequence[Routed]]] = []
    for name, function in (("plain", fast.page), ("odd", fast.odd)):
        if function is not None:
            builder = PageBuilder()
            left = function([(5, item, found[1])], builder, found[0].route.template, found[0].places)
            out.append((name, builder.finish(), left))
    return out


def _spelt(tables: dict[str, bytes], plan: Plan) -> dict[str, Any]:
    """Rows in a form that shows every digit and the order of members."""
    known = {table.name: table for _, table in plan.mapping.tables()}
    return {name: repr(read_rows(data, known[name])) for name, data in sorted(tables.items())}


def _agrees(lens: Lens, plan: Plan, item: Item) -> list[str]:
    """Check both functions on one item; return the names of those that took it."""
    taken = []
    exact = lens.forward(item)
    for name, page, left in _functions(lens, item):
        if left:
            assert PageRows() == page
            continue
        taken.append(name)
        assert isinstance(exact, RowSet), (name, exact, item, plan.text)
        assert _spelt(lens.pack(exact, 5), plan) == _spelt(page.tables, plan), (name, item, plan.text)
        assert dict(exact.normalised) == page.normalised, (name, item, plan.text)
        builder = PageBuilder()
        lens._add(builder, exact, 5)
        builder.accept(5, item, plan.mapping.entities[0].id)
        wanted = builder.finish()
        assert wanted.accepted == page.accepted
        assert wanted.row_counts == page.row_counts
        if name == "odd":
            assert wanted.rest_bytes == page.rest_bytes, (item, plan.text)
    return taken


@law
@given(seeds)
def test_generated_functions_agree_with_the_exact_way(seed: int) -> None:
    """An item that one of them takes has the rows, losses and bytes in rest that the exact way gives it."""
    rnd = random.Random(seed)
    plan = make_plan(rnd)
    lens = compile_mapping(plan.mapping)
    for _ in range(8):
        _agrees(lens, plan, make_item(rnd, plan))


def test_both_functions_are_met_by_many_items() -> None:
    """The random items reach them: the odd function takes most of what the exact way accepts, the plain one some."""
    plain = odd = accepted = 0
    for seed in range(300):
        rnd = random.Random(seed)
        plan = make_plan(rnd)
        lens = compile_mapping(plan.mapping)
        if not any(fast.odd is not None for fast in lens._fast.values()):
            continue
        for _ in range(6):
            item = make_item(rnd, plan)
            taken = _agrees(lens, plan, item)
            plain, odd = plain + ("plain" in taken), odd + ("odd" in taken)
            accepted += isinstance(lens.forward(item), RowSet)

    assert 50 < plain < odd
    assert 0.6 * accepted < odd
