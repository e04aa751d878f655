"""The members that a plain object has, as a tree: what both generators walk."""

from __future__ import annotations

from dataclasses import dataclass, field

from kvmigrate.transform.lens.plan import ColumnPlan, TablePlan

Leaf = ColumnPlan | TablePlan


def walk(plan: TablePlan) -> list[TablePlan]:
    """Return the table and its children, parents first."""
    return [plan, *(each for child in plan.children for each in walk(child))]


@dataclass(slots=True)
class Members:
    """The members of one object that the struct has: by name, a column, a child, or an object."""

    by_name: dict[str, Leaf | Members] = field(default_factory=dict)

    def add(self, path: tuple[str, ...], leaf: Leaf) -> None:
        """Put *leaf* at *path*."""
        inner = self
        for name in path[:-1]:
            found = inner.by_name.setdefault(name, Members())
            assert isinstance(found, Members)  # noqa: S101 - the mapping was refused if paths overlap
            inner = found
        inner.by_name[path[-1]] = leaf

    def leaves(self) -> list[Leaf]:
        """Return the columns and children from the outside in."""
        out: list[Leaf] = []
        for found in self.by_name.values():
            out.extend(found.leaves() if isinstance(found, Members) else [found])
        return out


def members_of(plan: TablePlan) -> Members:
    """Return the tree of a table's first paths and of its children."""
    members = Members()
    for each in plan.members:
        members.add(each.column.paths[0], each)
    for child in plan.children:
        members.add(child.table.each or (), child)
    return members
