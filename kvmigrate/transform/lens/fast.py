"""Items to rows at full speed: two generated functions per entity.

The first takes plain items, whose every member is mapped and spelt as usual (`fast_plain`).
What it refuses the second tries, which keeps what the columns do not carry (`fast_odd`).
All other items take the exact path (`forward`). `kvmigrate schema --show-code` prints both.
"""

from __future__ import annotations

import re
from functools import cached_property

from kvmigrate.transform.keys.template_overlap import templates_overlap
from kvmigrate.transform.lens.fast_members import walk
from kvmigrate.transform.lens.fast_odd import OddGenerator, can_be_odd
from kvmigrate.transform.lens.fast_plain import PageFunction, PlainGenerator
from kvmigrate.transform.lens.plan import INTEGERS, EntityPlan, TablePlan
from kvmigrate.transform.mapping import Decode

_NO_STRUCT_NAME = re.compile(r'[\x00-\x1f"\\]').search
"""Finds member names that the decoder's structs cannot have."""

_KEY_TYPES = {"uuid", "text", *INTEGERS}


class FastEntity:
    """The compiled form of one entity. Code is generated when it is first needed: the emitter may leave nothing to it.

    Attributes:
        templates: Positions of the key templates whose items it takes.
    """

    def __init__(self, plan: EntityPlan) -> None:
        """Keep the plan."""
        self._plan, self.templates = plan, _templates(plan)

    @property
    def source(self) -> str:
        """The generated code."""
        return "\n\n".join(source for source, _ in (self._plain, self._odd) if source)

    @property
    def page(self) -> PageFunction:
        """The function for plain items."""
        return self._plain[1]

    @property
    def odd(self) -> PageFunction | None:
        """The function for items that `page` returns; ``None`` where only the exact path knows them."""
        return self._odd[1]

    @cached_property
    def _plain(self) -> tuple[str, PageFunction]:
        return PlainGenerator(self._plan).finish()

    @cached_property
    def _odd(self) -> tuple[str, PageFunction | None]:
        return OddGenerator(self._plan).finish() if can_be_odd(self._plan) else ("", None)


def compile_entity(plan: EntityPlan) -> FastEntity | None:
    """Return the compiled form of an entity, or ``None`` when it has features only the exact path knows."""
    return FastEntity(plan) if _eligible(plan) else None


def _eligible(plan: EntityPlan) -> bool:
    entity = plan.entity
    if (
        entity.rows_only
        or plan.derive
        or entity.decode not in {Decode.AUTO, Decode.JSON}
        or plan.root.whole is not None
    ):
        return False
    first = entity.keys[0]
    sources = {each.column.source for each in plan.keys}
    if any(capture.name not in sources and len(capture.choices) != 1 for capture in first.captures):
        return False
    if any(templates_overlap(first, other) for other in entity.keys[1:]):
        return False
    if any(each.column.type.array or each.column.type.base not in _KEY_TYPES for each in plan.keys):
        return False
    return all(_eligible_table(table) for table in walk(plan.root))


def _eligible_table(plan: TablePlan) -> bool:
    """A child's elements are objects or scalars of an array; maps and arrays of arrays are not plain."""
    names = [name for member in plan.members for name in member.column.paths[0]]
    names += [name for child in plan.children for name in child.table.each or ()]
    if any(_NO_STRUCT_NAME(name) for name in names):
        return False
    if plan.table.is_map or any(len(child.table.each or ()) != 1 for child in plan.children):
        return False
    return not any(each.column.forward or each.column.has_default for each in plan.columns)


def _templates(plan: EntityPlan) -> frozenset[int]:
    """The templates that capture every KEY column."""
    sources = {each.column.source for each in plan.keys}
    captured = [{capture.name for capture in template.captures} for template in plan.entity.keys]
    return frozenset(position for position, names in enumerate(captured) if sources <= names)
