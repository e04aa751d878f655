"""What is left of a value while columns claim its members: copied only where it is touched."""

from __future__ import annotations

from typing import Any

from kvmigrate.transform.path import Path


class Remainder:
    """A view of an object from which members are taken out; the object itself stays whole."""

    def __init__(self, value: dict[str, Any]) -> None:
        """Start with everything."""
        self.value = dict(value)
        self._own: set[Path] = {()}

    def take(self, path: Path) -> None:
        """Remove the member at *path*, and each object that this empties."""
        chain = self._chain(path)
        del chain[-1][path[-1]]
        for level in range(len(path) - 1, 0, -1):
            if chain[level]:
                return
            del chain[level - 1][path[level - 1]]

    def put(self, path: Path, value: Any) -> None:
        """Replace the member at *path*."""
        self._chain(path)[-1][path[-1]] = value

    def _chain(self, path: Path) -> list[dict[str, Any]]:
        """The objects from the outside to the one that holds the member, each our own copy."""
        chain = [self.value]
        for level, name in enumerate(path[:-1], 1):
            prefix = path[:level]
            if prefix not in self._own:
                chain[-1][name] = dict(chain[-1][name])
                self._own.add(prefix)
            chain.append(chain[-1][name])
        return chain
