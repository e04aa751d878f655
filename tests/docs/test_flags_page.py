"""The page of flags is true."""

import yaml

from kvmigrate.flags.document import read_document, to_document
from kvmigrate.intent import ReadIntent
from tests.docs.pages import DOCS, blocks


def test_the_document_of_the_page_is_read() -> None:
    """With the members that it explains, and written again as it was understood."""
    [block] = blocks(DOCS / "reference" / "flags.md", "yml")
    state = read_document(yaml.safe_load(block.text), "the page", "shop")

    expected = ReadIntent(1_000, "", "client", frozenset({"42"}), frozenset({"7"}), 500)
    assert expected == state.of("get.clients.id")
    assert ReadIntent() == state.of("get.gifts")
    assert state == read_document(to_document(state, "shop"), "again", "shop")
