"""The ledger's rows of a batch: the same bytes with compiled code and without."""

import pathlib
from unittest import mock

import pytest

from kvmigrate.model import MAX_KEY_BYTES, Version
from kvmigrate.target.attempt import Parts
from kvmigrate.target.base import Label
from kvmigrate.target.layout import Layout
from kvmigrate.target.ledger_rows import LedgerRows
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import Accepted, compile_mapping, emitted
from tests.need import need

MAPPING = load_mapping(pathlib.Path(__file__).parents[2] / "bench" / "mapping.yaml")
HASH = bytes(range(16))


@pytest.fixture(scope="module")
def parts() -> Parts:
    """The parts of a scope."""
    return Parts(Layout(MAPPING), compile_mapping(MAPPING), 7)


def packed(parts: Parts, accepted: list[Accepted], *, compiled: bool) -> bytes:
    """Return the rows of accepted items."""
    with mock.patch.object(emitted, "native", emitted.native if compiled else None):
        rows = LedgerRows(parts, Label(3, Version(2, 9)))
        rows.add_accepted(accepted)
        return rows.packed()


@pytest.mark.parametrize("expiry", [None, 1_700_000_000_123])
def test_compiled_code_packs_the_same_rows(parts: Parts, expiry: int | None) -> None:
    """Keys of every length and alphabet, several entities, with an expiry among them and without."""
    if emitted.native is None:
        need("the compiled emitter; `make setup` builds it where there is a C compiler")
    first, second, *_ = (entity.id for entity in MAPPING.entities)
    keys = ["", "a", "ü€😀", "x" * MAX_KEY_BYTES, "client:1"]
    accepted = [Accepted(n, key, (first, second)[n % 2], HASH, None) for n, key in enumerate(keys)]
    accepted.append(Accepted(9, "last", second, HASH, expiry))

    found = packed(parts, accepted, compiled=True)

    assert packed(parts, accepted, compiled=False) == found
    assert len(found) > 6 * 60 + MAX_KEY_BYTES


def test_what_is_no_accepted_item_is_told() -> None:
    """Compiled code looks at everything before it trusts it."""
    if emitted.native is None:
        need("the compiled emitter; `make setup` builds it where there is a C compiler")
    rows = emitted.native.ledger_rows
    for accepted, error in [
        ([("a", 1)], TypeError),
        ([(0, "a", 1, "text", None)], TypeError),
        ([(0, b"a", 1, HASH, None)], ValueError),
        ([(0, "\ud800", 1, HASH, None)], ValueError),
        ([(0, "a", 2, HASH, None)], KeyError),
        ([(0, "a", 3, HASH, None)], KeyError),
    ]:
        with pytest.raises(error):
            rows(accepted, b"", {1: b"", 3: 7}, b"")
