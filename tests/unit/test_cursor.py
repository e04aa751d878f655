"""A cursor says what it was made of, and nothing else can be made into one."""

import base64
import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmigrate.errors import ConfigError
from kvmigrate.reads.cursor import Cursors

SECRET, OTHER = b"s" * 16, b"o" * 16
VALUES = st.one_of(
    st.booleans(),
    st.integers(),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False),
    st.datetimes(timezones=st.just(dt.UTC)),
    st.dates(),
    st.uuids(),
)


@given(st.lists(VALUES, min_size=1, max_size=3))
def test_values_come_back_with_their_types(values: list[Any]) -> None:
    """So that they are compared as what they are."""
    cursors = Cursors([SECRET], "q")

    found = cursors.read(cursors.write(values, [1]), [1])

    assert [(type(each), each) for each in values] == [(type(each), each) for each in found]


def test_an_older_secret_is_accepted_and_the_first_signs() -> None:
    """A secret is changed while clients turn pages."""
    old, both, new = Cursors([OTHER], "q"), Cursors([SECRET, OTHER], "q"), Cursors([SECRET], "q")

    assert [7] == both.read(old.write([7], []), [])
    assert [7] == new.read(both.write([7], []), [])


def changed(cursor: str) -> str:
    """The same with another value."""
    raw = bytearray(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    raw[-3] ^= 1
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@pytest.mark.parametrize("wrong", ["", "x", "é", "A" * 5_000, "====", changed(Cursors([SECRET], "q").write([7], []))])
def test_what_nobody_signed_is_refused(wrong: str) -> None:
    """A client may send anything."""
    with pytest.raises(ConfigError, match="no cursor of this query"):
        Cursors([SECRET], "q").read(wrong, [])


@pytest.mark.parametrize(("about", "filters"), [("another query", []), ("q", [8]), ("q", ["7"])])
def test_a_cursor_is_of_one_query_and_its_filters(about: str, filters: list[Any]) -> None:
    """It leads nobody into the rows of another tenant."""
    cursor = Cursors([SECRET], "q").write([uuid.UUID(int=1)], [7])

    with pytest.raises(ConfigError):
        Cursors([SECRET], about).read(cursor, filters)


@pytest.mark.parametrize("value", [None, b"x", Decimal("NaN").__class__])
def test_values_that_order_nothing_are_refused(value: Any) -> None:
    """Null in a row, or of a type that no cursor holds."""
    with pytest.raises(ConfigError, match="orders pages"):
        Cursors([SECRET], "q").write([value], [])


@pytest.mark.parametrize("secrets", [[], [b"short"]])
def test_a_short_secret_is_refused(secrets: list[bytes]) -> None:
    """Anybody could guess it."""
    with pytest.raises(ConfigError, match="16 bytes"):
        Cursors(secrets, "q")
