"""A source whose scan a test changes."""

from collections.abc import Callable, Iterator
from typing import Any

from kvmigrate.stores.base import KVSource, Page, ScanRequest


class Wrapped:
    """A source whose scan is changed by *around*; all else is the wrapped one's."""

    def __init__(self, source: KVSource, around: Callable[[Iterator[Page]], Iterator[Page]]) -> None:
        self._source, self._around = source, around

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def scan(self, request: ScanRequest, *, after: str = "") -> Iterator[Page]:
        """Yield what *around* makes of the wrapped scan."""
        return self._around(self._source.scan(request, after=after))

    def change_mark(self) -> None:
        """Nobody can tell what *around* changes."""
