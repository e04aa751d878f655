"""One table's declaration in the mapping file, checked, before anything is resolved."""

from __future__ import annotations

from dataclasses import dataclass, field

from kvmigrate.errors import NotSupportedError
from kvmigrate.transform.declaration.column_file import ColumnDraft, read_column, read_path
from kvmigrate.transform.declaration.yaml_nodes import Node
from kvmigrate.transform.mapping import OnBadValue, RestPolicy, Role
from kvmigrate.transform.path import Path

TABLE_KEYS = ("columns", "primary_key", "unique", "indexes", "rest", "children")
CHILD_KEYS = (*TABLE_KEYS, "each", "parent", "on_bad_value")
LATER_KEYS = ("history", "partition_by", "retention", "views", "access", "policies")
_INDEX_WORDS = 2


@dataclass(slots=True)
class TableDraft:
    """A table as declared. Lists are in file order."""

    node: Node
    name: str
    columns: list[ColumnDraft] = field(default_factory=list)
    primary_key: list[Node] = field(default_factory=list)
    uniques: list[Node] = field(default_factory=list)
    indexes: list[Node] = field(default_factory=list)
    rest: str = "rest"
    rest_policy: RestPolicy = RestPolicy.KEEP
    each: Path | None = None
    parent: list[tuple[str, Node]] = field(default_factory=list)
    on_bad_value: OnBadValue = OnBadValue.QUARANTINE
    children: list[TableDraft] = field(default_factory=list)

    @property
    def is_map(self) -> bool:
        """Whether the child's elements are members of an object whose keys are data."""
        return any(draft.column.role is Role.MAP_KEY for draft in self.columns)

    def roles(self, role: Role) -> list[ColumnDraft]:
        """Return the declared columns of this role."""
        return [draft for draft in self.columns if draft.column.role is role]


def refuse_later(members: dict[str, Node]) -> None:
    """Refuse keys of the mapping language that are planned and not built. Raises `NotSupportedError`."""
    for key in LATER_KEYS:
        if key in members:
            node = members[key]
            raise NotSupportedError(
                f"{key!r} is not supported yet",
                line=node.line,
                column=node.column,
                file=node.file,
                hint=f"remove {key!r}",
            )


def fill_table(draft: TableDraft, members: dict[str, Node], *, entity: str) -> TableDraft:
    """Read the keys that root, child and lookup tables share. Raises `MappingError`."""
    if "columns" in members:
        for name, node in members["columns"].mapping("columns").items():
            Node(name, node.line, node.column, node.file).name("a column's name")
            draft.columns.append(read_column(name, node, entity=entity))
    draft.primary_key = _names(members, "primary_key")
    draft.uniques = _lists(members, "unique")
    draft.indexes = _lists(members, "indexes")
    if "rest" in members:
        text = members["rest"].name("rest")
        if text in {RestPolicy.REJECT, RestPolicy.DROP}:
            draft.rest, draft.rest_policy = "", RestPolicy(text)
        else:
            draft.rest = text
    if "children" in members:
        for name, node in members["children"].mapping("children").items():
            draft.children.append(read_child(name, node, entity=entity))
    return draft


def read_child(name: str, node: Node, *, entity: str) -> TableDraft:
    """Check one child table. Raises `MappingError`."""
    refuse_later(node.mapping(f"child {name!r}"))
    members = node.only(f"child {name!r}", CHILD_KEYS)
    Node(name, node.line, node.column, node.file).name("a table's name")
    draft = TableDraft(node, name)
    if "each" not in members:
        node.fail(f"child {name!r} needs each: the path of its array or object")
    draft.each = read_path(members["each"])
    if "parent" in members:
        draft.parent = list(members["parent"].mapping("parent").items())
        for column, spot in draft.parent:
            Node(column, spot.line, spot.column, spot.file).name("a column's name")
    if "on_bad_value" in members:
        draft.on_bad_value = OnBadValue(
            members["on_bad_value"].choice("on_bad_value", [str(each) for each in OnBadValue])
        )
    fill_table(draft, members, entity=entity)
    _check_child(draft)
    return draft


def _check_child(draft: TableDraft) -> None:
    node = draft.node
    if draft.roles(Role.KEY):
        draft.roles(Role.KEY)[0].node.fail(
            "a child's columns come from the element; copy the parent's column with parent:"
        )
    ordinals, keys = draft.roles(Role.ORDINAL), draft.roles(Role.MAP_KEY)
    if len(ordinals) + len(keys) != 1:
        node.fail(
            f"child {draft.name!r} needs one ordinal column (an array) "
            "or one map_key column (an object whose keys are data)",
            hint="without it the order of the array would be lost: position: {ordinal: true}",
        )
    for column in draft.columns:
        if column.column.has_default:
            column.node.fail("a default goes with a root table's column")


def _names(members: dict[str, Node], key: str) -> list[Node]:
    if key not in members:
        return []
    nodes = members[key].items(key)
    if not nodes or len({node.text(key) for node in nodes}) != len(nodes):
        members[key].fail(f"{key} is a list of different column names")
    return nodes


def _lists(members: dict[str, Node], key: str) -> list[Node]:
    return members[key].items(key) if key in members else []


def index_parts(node: Node) -> list[tuple[str, bool, Node]]:
    """Return (column, descends, place) of ``[a, b desc]``. Raises `MappingError`."""
    parts = []
    for each in node.items("an index"):
        words = each.text("an index column").split()
        if not words or len(words) > _INDEX_WORDS or words[1:] not in ([], ["desc"], ["asc"]):
            each.fail("an index column is a name, or a name and desc")
        parts.append((words[0], words[1:] == ["desc"], each))
    if not parts:
        node.fail("an index needs a column")
    return parts
