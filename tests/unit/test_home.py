"""Which rows PostgreSQL alone can match with the ledger."""

import pytest

from kvmigrate.consistency.home import tells_home
from kvmigrate.transform.declaration.mapping_file import load_mapping


@pytest.mark.parametrize(
    ("keys", "id_type", "tells"),
    [
        ('["a:{id}"]', "uuid", True),
        ('["a:{id}"]', "text", True),
        ('["a:{id}"]', "integer", True),
        ('["a:{id}"]', "bigint", True),
        ('["a:{id}"]', "timestamptz, format: epoch_ms", False),
        ('["a:{id=uuid}"]', "uuid", True),
        ('["a:{id=int}"]', "integer", True),
        ('["a:{id=int}"]', "text", False),
        ('["a:{id=x|y}"]', "text", False),
        ('["a:{id*}"]', "text", False),
        ('["a:{id}", "b:{id}"]', "text", True),
        ('["a:{id}", "as:{id}"]', "text", True),
        ('["a:{id}", "a:{env=test}:{id}"]', "text", True),
        ('["a:{env=test}:{id}", "a:{id}"]', "text", True),
        ('["a:{id}", "a:{id=uuid}"]', "text", False),
        ('["a:{id}", "a:{id=x:y|z}"]', "text", False),
    ],
)
def test_a_row_tells_where_its_item_has_its_row(keys: str, id_type: str, tells: bool) -> None:  # noqa: FBT001
    """Where every key that the first pattern renders is matched by it, with the same captures, and by no other."""
    columns = f"{{id: {{key: id, type: {id_type}}}}}"
    mapping = load_mapping(
        f"version: 1\nname: m\nentities:\n  a:\n    keys: {keys}\n    table: t\n    columns: {columns}\n"
    )
    assert tells is tells_home(mapping.entities[0])
