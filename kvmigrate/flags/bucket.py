"""Where a request stands between 0 and all of the traffic, bit for bit as Unleash has it."""

from __future__ import annotations

from mmh3 import mmh3_32_uintdigest as murmur3

# Unleash numbers a request from 1 to 100 by the hash modulo 100, and lets it in where that is at most the percentage.
# The next two digits divide each percent further, so that whole percents stay what they are there.


def position(group: str, value: object) -> int:
    """Return the place of a sticky value, from 0 to 9999: it reads the tables where that is below the share."""
    text = f"{group}:{value}"
    # Not as text: of half a character, which clients may send, the driver does not make a hash but ends the process.
    try:
        hashed = murmur3(text.encode())
    except UnicodeEncodeError:
        # Said for all texts, it would take three times as long.
        hashed = murmur3(text.encode("utf-8", "surrogatepass"))
    return hashed % 100 * 100 + hashed // 100 % 100
