"""What counts as the same content, for the backfill and for the verifier."""

import itertools

import pytest

from kvmigrate.consistency.judge import is_content
from kvmigrate.model import Item, ItemKind
from kvmigrate.transform.values.content_hash import content_hash

ALIKE = [
    Item("k", b""),
    Item("k", None, ItemKind.NULL),
    Item("k", {}, ItemKind.HASH),
    Item("k", "list", ItemKind.OTHER),
    Item("k", b"list"),
    Item("k", {b"": b""}, ItemKind.HASH),
    Item("k", bytes(16)),
    Item("k", b"", expires_at_ms=100),
    Item("k", None, ItemKind.NULL, expires_at_ms=100),
]


def test_items_that_differ_only_in_kind_have_different_hashes() -> None:
    """A SQL NULL that becomes an empty text is a change, as is a list that becomes a text of its name."""
    hashes = [content_hash(item) for item in ALIKE]

    assert len(ALIKE) == len(set(hashes))
    assert {16} == set(map(len, hashes))


@pytest.mark.parametrize(("one", "other"), list(itertools.product(ALIKE, ALIKE)))
def test_the_verifier_knows_the_same_contents(one: Item, other: Item) -> None:
    """It computes the hash by itself, and comes to the same."""
    assert (one == other) == is_content(one, content_hash(other))


def test_fields_of_a_hash_have_no_order_and_no_seams() -> None:
    """Neither the order of fields nor moving a byte from a name to its value goes unnoticed or is invented."""
    one, turned = {b"a": b"bc", b"d": b"e"}, {b"d": b"e", b"a": b"bc"}
    moved = {b"ab": b"c", b"d": b"e"}

    assert content_hash(Item("k", one, ItemKind.HASH)) == content_hash(Item("k", turned, ItemKind.HASH))
    assert content_hash(Item("k", one, ItemKind.HASH)) != content_hash(Item("k", moved, ItemKind.HASH))
