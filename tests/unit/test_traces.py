"""What is left of a document when an item is erased: nothing about it, and everything else."""

from __future__ import annotations

from typing import Any

import pytest

from kvmigrate.target.traces import ERASED, without


@pytest.mark.parametrize(
    ("document", "left"),
    [
        ({"keys": {"user:1": ["moved"], "user:2": []}}, {"keys": {"user:2": []}}),
        ({"examples": [{"key": "user:1", "path": "$"}, {"key": "user:10"}]}, {"examples": [{"key": "user:10"}]}),
        (["user:1", "user:1:cart"], ["user:1:cart"]),
        ({"key": "user:1:cart"}, {"key": "user:1:cart"}),
        ({"why": "looked at user:1: broken"}, {"why": ERASED}),
        ({"why": "looked at 'user:1'."}, {"why": ERASED}),
        ({"why": "looked at user:1:cart"}, {"why": "looked at user:1:cart"}),
    ],
)
def test_what_is_about_the_key_goes(document: Any, left: Any) -> None:
    """Its element, its member, and a text that names it; never another key that begins alike."""
    assert left == without(document, "user:1")


def test_words_of_the_mapping_stay() -> None:
    """Also where a key is called as its entity."""
    document = {"strata": [{"entity": "settings", "n": 1}], "rows": {"settings": 1}, "table": "settings"}

    assert document == without(document, "settings")
