# The compiled emitter; its source is in `emit/`.

from collections.abc import Callable, Sequence
from typing import Self

from kvmigrate.model import Item, ItemKind
from kvmigrate.transform.lens.page import Accepted, Block, Routed

LAYOUT: int

class Program:
    def __new__(
        cls,
        tables: tuple[object, ...],
        nodes: tuple[object, ...],
        names: tuple[str, ...],
        entity: int,
        keys: int,
        takes_expiry: bool,
        owned: bool,
        /,
    ) -> Self: ...

class Emitter:
    def __new__(
        cls,
        programs: tuple[Program, ...],
        json: ItemKind,
        accepted: type[Accepted],
        digest: Callable[[bytes], bytes],
        content_hash: Callable[[Item], bytes],
        heads: tuple[object, ...],
        /,
    ) -> Self: ...
    def group(
        self, program: int, group: list[Routed], staged: bool, derived: bool, places: tuple[int, ...], /
    ) -> tuple[list[Routed], list[Accepted], list[Block]]: ...
    def page(
        self, items: Sequence[Item], staged: bool, /
    ) -> tuple[list[tuple[int, Item]], list[Accepted], list[Block]]: ...
    def takes(self, keys: list[str], /) -> bool: ...

def ledger_rows(accepted: list[Accepted], start: bytes, middles: dict[int, bytes], end: bytes, /) -> bytes | None: ...
