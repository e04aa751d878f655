"""One entity's declaration in the mapping file, checked, before anything is resolved."""

from __future__ import annotations

from dataclasses import dataclass, field

from kvmigrate.transform.declaration.table_file import TABLE_KEYS, TableDraft, fill_table, refuse_later
from kvmigrate.transform.declaration.yaml_nodes import Node
from kvmigrate.transform.keys.pattern import KeyTemplate, parse_template
from kvmigrate.transform.mapping import Decode, Expires

ENTITY_KEYS = (
    *TABLE_KEYS,
    "keys",
    "table",
    "tenant",
    "expires",
    "decode",
    "on_same_row",
    "on_nul",
    "rows_only",
    "derive",
    "joined_as",
    "source_key",
)
ON_NUL = ("quarantine", "escape")


@dataclass(slots=True)
class EntityDraft:
    """An entity as declared, before columns, keys and order are resolved."""

    node: Node
    name: str
    keys: list[tuple[Node, KeyTemplate]]
    root: TableDraft
    members: dict[str, Node]
    rows_only: bool = False
    decode: Decode = Decode.AUTO
    expires: Expires = Expires.UNDECLARED
    on_nul: str = "quarantine"
    derive: list[TableDraft] = field(default_factory=list)

    def option(self, key: str, *choices: str) -> str:
        """Return the member's value if declared, else the first choice."""
        return self.members[key].choice(key, choices) if key in self.members else choices[0]


def read_entity(name: str, node: Node, defaults: dict[str, Node]) -> EntityDraft:
    """Check one entity; *defaults* are options of the whole file. Raises `MappingError`."""
    refuse_later(node.mapping(f"entity {name!r}"))
    own = node.only(f"entity {name!r}", ENTITY_KEYS)
    members = {**defaults, **own}
    if "keys" not in members:
        node.fail(f"entity {name!r} needs keys: the patterns of its keys")
    rows_only = "rows_only" in members and members["rows_only"].flag("rows_only")
    if rows_only == ("table" in members):
        node.fail(f"entity {name!r} needs a table, or rows_only: true and children")
    table = name if rows_only else members["table"].name("table")
    draft = EntityDraft(
        node=node,
        name=name,
        keys=[read_template(each) for each in members["keys"].items("keys")],
        root=fill_table(TableDraft(node, table), own, entity=name),
        members=members,
        rows_only=rows_only,
    )
    draft.decode = Decode(draft.option("decode", *[str(each) for each in Decode]))
    draft.on_nul = draft.option("on_nul", *ON_NUL)
    if "expires" in members:
        draft.expires = Expires(members["expires"].choice("expires", ("column", "leave_in_kv", "ignore")))
    if "derive" in members:
        draft.derive = [_lookup(table_name, each) for table_name, each in members["derive"].mapping("derive").items()]
    if not draft.keys:
        members["keys"].fail("keys is empty")
    return draft


def _lookup(name: str, node: Node) -> TableDraft:
    members = node.only(f"lookup {name!r}", ("columns", "primary_key"))
    Node(name, node.line, node.column, node.file).name("a table's name")
    draft = fill_table(TableDraft(node, name), members, entity=name)
    draft.rest = ""
    if not draft.primary_key:
        node.fail(f"lookup {name!r} needs a primary_key: it is filled once per value")
    return draft


def read_template(node: Node) -> tuple[Node, KeyTemplate]:
    """Parse a key pattern, or fail at its place."""
    hash_key = None
    text_node = node
    if isinstance(node.value, dict):
        members = node.only("a hash's key", ("hash", "field"))
        if set(members) != {"hash", "field"}:
            node.fail("a table kept in a hash is written {hash: NAME, field: '{id}'}")
        hash_key, text_node = members["hash"].text("hash"), members["field"]
        if not hash_key or "{" in hash_key:
            members["hash"].fail("a hash that is a table has one fixed name; its fields are the pattern")
    try:
        return node, parse_template(text_node.text("a key pattern"), hash_key=hash_key)
    except ValueError as exc:
        return node.fail(str(exc))
