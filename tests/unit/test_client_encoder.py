"""Arguments become the bytes that the driver would send, or what it raises."""

from __future__ import annotations

from typing import Any

import pytest
import redis
import redis.connection

from kvmigrate.stores.client_encoder import ClientEncoder

# The driver left these untyped, or exports them nowhere.
DRIVER: Any = redis.connection

TAKEN = [b"x\xff", bytearray(b"y"), memoryview(b"z"), "é", 7, 2**70, 1.5, 1e300, -0.0]
REFUSED = [None, True, [], {}, object(), Ellipsis]


def told(value: object) -> str:
    """The value's type, or itself: where it lies differs from process to process."""
    return type(value).__name__ if " at 0x" in repr(value) else repr(value)


@pytest.mark.parametrize("value", TAKEN, ids=told)
def test_what_the_driver_packs_in_c_has_the_same_bytes(value: Any) -> None:
    """Whatever its encoding is called, as C knows UTF-8 alone."""
    [packed] = DRIVER.HiredisRespSerializer().pack("SET", value)
    encoded = ClientEncoder(DRIVER.Encoder("latin-1", "strict", decode_responses=False), in_c=True).encode(value)

    assert packed == b"*2\r\n$3\r\nSET\r\n$%d\r\n%b\r\n" % (len(encoded), encoded)


@pytest.mark.parametrize("value", REFUSED, ids=told)
def test_what_the_driver_refuses_is_refused_in_its_words(value: Any) -> None:
    """With and without an event loop, where it packs in Python."""
    own = DRIVER.Encoder("utf-8", "strict", decode_responses=False)
    with pytest.raises(redis.DataError) as in_c:
        DRIVER.HiredisRespSerializer().pack("SET", value)
    with pytest.raises(redis.DataError) as in_python:
        own.encode(value)
    for is_in_c, error in ((True, in_c), (False, in_python)):
        with pytest.raises(redis.DataError) as raised:
            ClientEncoder(own, in_c=is_in_c).encode(value)
        assert str(error.value) == str(raised.value)
