"""Plain items to rows by compiled code, where it was built; the same bytes as the generated Python.

It takes what it knows for certain and hands back everything else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

from kvmigrate.model import Item, ItemKind
from kvmigrate.transform.keys.route import Candidate, Router
from kvmigrate.transform.lens.emit_program import LAYOUT, program_of
from kvmigrate.transform.lens.emit_routes import routes_of
from kvmigrate.transform.lens.page import Accepted, PageBuilder, Routed
from kvmigrate.transform.lens.plan import EntityPlan
from kvmigrate.transform.values.content_hash import content_hash, digest


def find_native() -> ModuleType | None:
    """Return the compiled module, or ``None`` where it was not built from these sources."""
    try:
        from kvmigrate.transform.lens import _emit  # noqa: PLC0415 - it may be absent
    except ImportError:
        return None
    return _emit if getattr(_emit, "LAYOUT", 0) == LAYOUT else None


native = find_native()
"""The compiled module; without it all items take the Python way."""


class Emitter:
    """The compiled programs of a mapping, and which keys they take."""

    def __init__(self, module: ModuleType, router: Router, plans: Mapping[int, EntityPlan]) -> None:
        """Compile; *plans* are those with generated code, by the numbers of their candidates."""
        self.entities: dict[str, int] = {}
        programs: list[Any] = []
        for plan in plans.values():
            if plan.entity.name not in self.entities and (found := program_of(plan)) is not None:
                self.entities[plan.entity.name] = len(programs)
                values = (getattr(found, each.name) for each in dataclasses.fields(found))
                programs.append(module.Program(*values))
        self._programs = {
            number: (self.entities[plan.entity.name], tuple(each.column.source for each in plan.keys))
            for number, plan in plans.items()
            if plan.entity.name in self.entities
        }
        heads, self._routed = routes_of(router.near, self._programs)
        self._native = module.Emitter(tuple(programs), ItemKind.JSON, Accepted, digest, content_hash, heads)

    def takes(self, keys: list[str]) -> bool:
        """Whether the compiled code tells of every key which entity it belongs to, all alone."""
        return bool(self._native.takes(keys))

    def page(self, items: Sequence[Item], builder: PageBuilder) -> Iterable[tuple[int, Item]]:
        """Add the rows of items whose keys are told by a split; return what is left, with its ordinals."""
        if not self._routed:
            return enumerate(items)
        left, accepted, blocks = self._native.page(items, builder.page.staged)
        builder.add_emitted(accepted, blocks)
        rest: list[tuple[int, Item]] = left
        return rest

    def group(self, group: list[Routed], builder: PageBuilder, candidate: Candidate) -> list[Routed]:
        """Add the rows of items of one template, unless `page` tried them; return what is left."""
        if candidate.number in self._routed or candidate.number not in self._programs:
            return group
        number, names = self._programs[candidate.number]
        places = tuple(candidate.places[name] for name in names)
        derived = candidate.route.template == 0
        left, accepted, blocks = self._native.group(number, group, builder.page.staged, derived, places)
        builder.add_emitted(accepted, blocks)
        rest: list[Routed] = left
        return rest
