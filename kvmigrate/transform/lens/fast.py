"""Plain items to rows at full speed: one generated function per entity."""

from __future__ import annotations

from kvmigrate.model import Item
from kvmigrate.transform.lens.page import PageBuilder
from kvmigrate.transform.lens.plan import EntityPlan
from kvmigrate.transform.route import Route

Routed = tuple[int, Item, Route]


class FastEntity:
    """The compiled form of one entity; *source* is its generated code."""

    source: str = ""

    def page(self, group: list[Routed], builder: PageBuilder) -> list[Routed]:
        """Turn plain items into rows; return the others for the exact path."""
        raise NotImplementedError


def compile_entity(plan: EntityPlan) -> FastEntity | None:
    """Return the compiled form of an entity, or ``None`` when it has features only the exact path knows."""
    del plan
    return None
