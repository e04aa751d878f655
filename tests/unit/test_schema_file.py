"""The reference schema in sql/ is what the example's mapping generates today."""

from __future__ import annotations

import pathlib

from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.tables.ddl_formats import render


def test_the_reference_schema_is_current(repository: pathlib.Path) -> None:
    """`make schema` writes it again after a change of the mapping or of the DDL."""
    mapping = load_mapping(repository / "examples" / "celebration" / "mapping.yaml")

    assert render(mapping) == (repository / "sql" / "schema.sql").read_text(encoding="utf-8")
