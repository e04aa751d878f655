# The compiled quick way; its source is in `walk/`.

from typing import Self

LAYOUT: int

class Program:
    def __new__(
        cls,
        tables: tuple[tuple[object, ...], ...],
        nodes: tuple[tuple[tuple[bytes, int, int], ...], ...],
        keys: tuple[tuple[int, int, int], ...],
        captures: tuple[str, ...],
        /,
    ) -> Self: ...
    def agreeing(self, items: list[object], captured: list[object], blobs: tuple[bytes, ...], /) -> list[bool]: ...

def same(left: object, right: object, /) -> bool: ...
