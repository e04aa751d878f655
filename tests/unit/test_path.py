"""Paths into a JSON value."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmigrate.transform.path import Path, format_path, json_path, parse_path


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", ()),
        ("a", ("a",)),
        ("_id.$oid", ("_id", "$oid")),
        ("address line 2", ("address line 2",)),
        ("/a.b/c", ("a.b", "c")),
        ("/a~1b/~0", ("a/b", "~")),
        ("/", ("",)),
        ("/a//b", ("a", "", "b")),
        ("a/b", ("a/b",)),
    ],
)
def test_paths_are_read(text: str, path: Path) -> None:
    """Dotted names, and JSON Pointers where the path starts with a slash."""
    assert path == parse_path(text)


@pytest.mark.parametrize("text", ["a..b", ".a", "a.", ".", "/a~", "/~2", "/~~"])
def test_wrong_paths(text: str) -> None:
    """An empty name between dots, and a tilde that escapes nothing, are refused."""
    with pytest.raises(ValueError, match=r"name|Pointer"):
        parse_path(text)


@settings(derandomize=True, deadline=None, database=None)
@given(st.lists(st.text(st.sampled_from("ab.~/01 ü$"), max_size=4), max_size=4).map(tuple))
def test_every_path_is_written_so_that_it_is_read_again(path: Path) -> None:
    """Notes in rest hold paths as text: each text gives its path again."""
    assert path == parse_path(format_path(path))


def test_paths_for_people() -> None:
    """Positions in brackets, odd names quoted."""
    assert "$.items[2].qty" == json_path("items", 2, "qty")
    assert "$['a b'][0]" == json_path("a b", 0)
    assert "$" == json_path()
