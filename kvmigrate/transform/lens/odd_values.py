"""What the generated code for odd items calls: the exact rules for one member, and `rest`.

A member stays in `rest` when its name is in *kept*, or when it is null. Whatever refuses
the item raises `Slow`: the exact path finds the same, and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from kvmigrate.transform.lens.fast_types import Slow
from kvmigrate.transform.lens.plan import ColumnPlan, EntityPlan, TablePlan
from kvmigrate.transform.mapping import REST_RESERVED, OnBadValue, RestPolicy
from kvmigrate.transform.path import format_path
from kvmigrate.transform.values.pack import NULL, pack_jsonb, packer
from kvmigrate.transform.values.refused import ValueRefused

_NUMBER_CHARS, _EXPONENT_CHARS = 40, 4

OddColumn = Callable[[Any, str, dict[str, Any], set[str], list[str]], bytes]
"""Packs a member that is not null. Takes it, its name, its object, what stays in rest, and the losses."""


def _exact_number(text: str) -> Decimal:
    """Longer numbers and exponents may be more than PostgreSQL holds."""
    if len(text) > _NUMBER_CHARS or len(text.lower().partition("e")[2]) > _EXPONENT_CHARS:
        raise Slow
    return Decimal(text)


decode_exactly = msgspec.json.Decoder(float_hook=_exact_number).decode
"""As `decode_json`, several times as fast; raises another error for whatever that refuses."""


def odd_column(table: TablePlan, plan: ColumnPlan) -> OddColumn:
    """Return the exact rules for one column."""
    column, pack = plan.column, packer(plan.column.type)
    loss = f"on_bad_value null: {table.table.name}.{column.name}"

    def without(value: bytes) -> bytes:
        if value is NULL and column.not_null:
            raise Slow
        return value

    def odd(value: Any, name: str, holder: dict[str, Any], kept: set[str], lost: list[str]) -> bytes:
        try:
            found = plan.read(value, as_text=False)
        except ValueRefused as exc:
            if column.on_bad_value is OnBadValue.KEEP_RAW:
                kept.add(name)
            elif column.on_bad_value is OnBadValue.NULL:
                lost.append(loss)
                holder[name] = None
            else:
                raise Slow from exc
            return without(NULL)
        if not plan.agrees(value, found, as_text=False):
            kept.add(name)
        return without(pack(found))

    return odd


def odd_aliases(
    table: TablePlan, plan: ColumnPlan
) -> Callable[[dict[str, Any], set[str], list[str], dict[str, Any]], bytes]:
    """Return the exact rules for a column that knows its member by several names."""
    names, column = [path[0] for path in plan.column.paths], plan.column
    odd = odd_column(table, plan)

    def claim(holder: dict[str, Any], kept: set[str], lost: list[str], notes: dict[str, Any]) -> bytes:
        taken = next((name for name in names if holder.get(name) is not None), None)
        if taken is None:
            if column.not_null:
                raise Slow
            return NULL
        others = [name for name in names if name != taken and name in holder]
        packed = odd(holder[taken], taken, holder, kept, lost)
        kept.update(others)
        if taken not in kept and holder[taken] is not None and (others or taken != names[0]):
            notes.setdefault("at", {})[column.name] = format_path((taken,))
        return packed

    return claim


def odd_key(plan: ColumnPlan) -> Callable[[str], bytes]:
    """Return what packs a capture that is spelt in another way than its column."""
    pack = packer(plan.column.type)
    return lambda text: pack(plan.read(text, as_text=True))


def key_rebuilder(plan: EntityPlan) -> Callable[[str, tuple[str, ...], Mapping[str, int]], bool]:
    """Return what tells whether the first template and the columns give back a key."""

    def rebuilds(key: str, captured: tuple[str, ...], places: Mapping[str, int]) -> bool:
        texts = {}
        for each in plan.keys:
            source = each.column.source
            texts[source] = each.convert.to_text(each.read(captured[places[source]], as_text=True))
        return plan.entity.keys[0].render(texts) == key

    return rebuilds


def odd_rest(plan: TablePlan) -> Callable[[dict[str, Any], dict[str, Any], list[str]], bytes]:
    """Return what packs the rest of a row, by the table's policy."""
    policy, loss = plan.table.rest_policy, f"rest: drop {plan.table.name}"

    def rest(left: dict[str, Any], notes: dict[str, Any], lost: list[str]) -> bytes:
        if policy is RestPolicy.REJECT:
            raise Slow
        if policy is RestPolicy.DROP:
            lost.append(loss)
            return NULL
        held = {REST_RESERVED + name if name[:1] == REST_RESERVED else name: each for name, each in left.items()}
        if notes:
            held[REST_RESERVED] = notes
        return pack_jsonb(held)

    return rest
