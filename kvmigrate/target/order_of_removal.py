"""In which order items can be deleted that refer to each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping


def referrers_first(items: Collection[str], parents: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Return *items* in groups: each behind all that refer to it, and those that refer to each other in one.

    Args:
        items: Keys.

        parents: Whom an item refers to; others than *items* do not count.
    """
    referrers: dict[str, list[str]] = defaultdict(list)
    for key in items:
        for parent in parents.get(key, ()):
            referrers[parent].append(key)
    return list(_Components(items, referrers).find())


class _Components:
    """Tarjan's strongly connected components, without recursion: a chain may be as long as a table."""

    def __init__(self, items: Collection[str], edges: Mapping[str, Collection[str]]) -> None:
        self._items, self._edges = items, edges
        self._number: dict[str, int] = {}
        self._lowest: dict[str, int] = {}
        self._open: list[str] = []
        self._is_open: set[str] = set()

    def find(self) -> Iterator[list[str]]:
        """Yield each component behind all that can be reached from it."""
        for start in self._items:
            if start in self._number:
                continue
            path = [(start, iter(self._enter(start)))]
            while path:
                here, ahead = path[-1]
                following = next((each for each in ahead if not self._is_settled(here, each)), None)
                if following is not None:
                    path.append((following, iter(self._enter(following))))
                    continue
                path.pop()
                if path:
                    above = path[-1][0]
                    self._lowest[above] = min(self._lowest[above], self._lowest[here])
                if self._lowest[here] == self._number[here]:
                    yield self._leave(here)

    def _enter(self, key: str) -> Collection[str]:
        self._number[key] = self._lowest[key] = len(self._number)
        self._open.append(key)
        self._is_open.add(key)
        return self._edges.get(key, ())

    def _is_settled(self, here: str, other: str) -> bool:
        """Whether *other* was entered before; if it is on the way to *here*, both are in one component."""
        if other not in self._number:
            return False
        if other in self._is_open:
            self._lowest[here] = min(self._lowest[here], self._number[other])
        return True

    def _leave(self, key: str) -> list[str]:
        component: list[str] = []
        while not component or component[-1] != key:
            component.append(self._open.pop())
        self._is_open.difference_update(component)
        return component
