"""Mappings whose tables have everything that tables can have."""

import dataclasses

from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.keys.pattern import parse_template
from kvmigrate.transform.mapping import (
    Column,
    Entity,
    ForeignKey,
    Index,
    Mapping,
    OnMissing,
    Reference,
    Role,
    Table,
    Unique,
)
from kvmigrate.transform.tables.identifiers import shorten
from kvmigrate.transform.values.column_type import ColumnType

_SHOP = """
version: 1
name: shop
entities:
  client:
    keys: ["client:{id}", "clients:{id}"]
    table: clients
    columns:
      id:            {key: id, type: uuid, foreign_ids: uuid5}
      name:          {path: name, type: text, required: true, search: trigram}
      contact_email: {path: [contact_email, contactEmail], type: text, personal: true}
      status:        {path: status, type: enum, values: [new, "it's", 'b\\c', "a b"], default: new}
    primary_key: [id]
    unique: [[name]]
    derive:
      mail_addresses:
        columns: {address: {path: contact_email, type: text}, name: {path: nick, type: text}}
        primary_key: [address]
  product:
    keys: ["product:{id}"]
    table: products
    columns:
      id:    {key: id, type: integer}
      price: {path: price, type: "numeric(12,2)", default: 1.5}
    primary_key: [id]
  site:
    keys: ["site:{id}"]
    table: sites
    tenant: client_id
    columns:
      id:        {key: id, type: uuid}
      client_id: {path: client_id, type: uuid, references: client, required: true}
    primary_key: [id]
  order:
    keys: ["order:{id}"]
    table: orders
    tenant: client_id
    columns:
      id:         {key: id, type: uuid}
      client_id:  {path: client_id, type: uuid, references: client, required: true}
      site_id:    {path: site, type: uuid, references: site}
      created_at: {path: created, type: timestamptz, format: iso}
    primary_key: [id]
    indexes: [[client_id, created_at desc]]
    expires: column
    children:
      order_items:
        each: items
        parent: {order_id: id}
        columns:
          position:   {ordinal: true}
          product_id: {path: product, type: integer, references: product, on_missing: "null"}
        children:
          item_notes:
            each: notes
            parent: {order_id: order_id, item: position}
            columns:
              language: {map_key: true, type: text}
              text:     {value: true, type: text}
  user_profile:
    keys: ["user:{id}:profile"]
    table: user_profiles
    joined_as: users
    columns: {id: {key: id, type: bigint}, name: {path: name, type: text}}
    primary_key: [id]
  user_cart:
    keys: ["user:{id}:cart"]
    table: user_carts
    joined_as: users
    columns: {id: {key: id, type: bigint}, total: {path: total, type: numeric}}
    primary_key: [id]
"""

EVERY_TYPE = (
    *("text", "boolean", "smallint", "integer", "bigint", "numeric(12,2)", "numeric", "real", "double precision"),
    *("uuid", "date", "time", "timestamptz", "interval", "bytea", "jsonb"),
    *("text[]", "boolean[]", "integer[]", "numeric(12,2)[]", "uuid[]", "date[]", "timestamptz[]"),
)

ODD_NAMES = (
    'a"b',
    "select",
    "Mixed Case",
    "naïve é",
    "日本語" * 7,
    "a.b",
    "per%cent :name %(x)s",
    "back\\slash",
    "'; DROP TABLE x; --",
    "{} {brace}",
    "new\nline",
    'ends with "',
)


def shop(*, schema: str = "public") -> Mapping:
    """Return a mapping with tenants, children, a lookup, a view, searches, enums and defaults."""
    return dataclasses.replace(load_mapping(_SHOP), schema=schema)


def of_tables(*tables: Table, schema: str = "public", name: str = "made", joined_as: str = "") -> Mapping:
    """Return a mapping with one entity for each of *tables*."""
    entities = tuple(
        Entity(f"e{number}", number, (parse_template(f"e{number}:{{id}}"),), table, joined_as=joined_as)
        for number, table in enumerate(tables)
    )
    return Mapping(name, schema, entities, fingerprint="0123456789abcdef" * 4)


def column(name: str, type_: ColumnType, **settings: object) -> Column:
    """Return a column that reads the member of its own name."""
    made = Column(name, type_, Role.PATH, paths=((name,),))
    return dataclasses.replace(made, **settings)  # type: ignore[arg-type]  # any field of Column


def odd_names() -> Mapping:
    """Return tables in an odd schema that use every odd name for every kind of object."""
    key = column("id", ColumnType("integer"), not_null=True)
    kinds = ColumnType("enum", values=("a", "it's", "b\\c", 'd"e'))
    columns = [key]
    for number, name in enumerate(ODD_NAMES):
        columns.append(column(name, kinds if number % 2 else ColumnType("text"), reference=None))
    texts = [each.name for each in columns if each.type.base == "text"]
    tables = []
    for number, name in enumerate(ODD_NAMES):
        link = ForeignKey(shorten(f"fk {name}"), name, ("id",), ODD_NAMES[number - 1], ("id",), owned=False)
        tables.append(
            Table(
                name,
                tuple(columns),
                ("id",),
                uniques=(Unique(shorten(f"u{number} {name}"), tuple(texts)),),
                indexes=(Index(shorten(f"i{number} {name}"), tuple((text, True) for text in texts)),),
                foreign_keys=(link,) if number else (),
            )
        )
    return of_tables(*tables, schema='odd "schema"', name="odd\n; DROP")


def ring_of_references() -> Mapping:
    """Return two tables that refer to each other, and each to itself."""
    made = []
    for name, other in (("left_side", "right_side"), ("right_side", "left_side")):
        reference = Reference(other, OnMissing.WAIT)
        columns = (
            column("id", ColumnType("bigint"), not_null=True),
            column("other", ColumnType("bigint"), reference=reference),
            column("own", ColumnType("bigint"), reference=reference),
        )
        keys = (
            ForeignKey(f"{name}_other_fkey", name, ("other",), other, ("id",), owned=False, column="other"),
            ForeignKey(f"{name}_own_fkey", name, ("own",), name, ("id",), owned=False, column="own"),
        )
        made.append(Table(name, columns, ("id",), foreign_keys=keys))
    return of_tables(*made)
