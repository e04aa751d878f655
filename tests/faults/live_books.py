"""What the books of all writers allow the stores to hold at the end."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

ABSENT = None


class Written(NamedTuple):
    """One write: its value (``None`` deletes, ``"+1"`` counts), and its version where it was acknowledged."""

    id: str
    key: str
    value: Any
    outcome: str
    version: tuple[int, int] | None

    @property
    def may_have_happened(self) -> bool:
        """It was not acknowledged, and not refused either: killed, or cut off before the answer."""
        return self.outcome in {"", "ambiguous"}


def read_books(files: Iterable[Path]) -> list[Written]:
    """Return all writes of all books."""
    found: list[Written] = []
    for file in files:
        begun: dict[str, dict[str, Any]] = {}
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # a writer was killed within a line: that write did not begin, or its outcome is not known
            begun.setdefault(entry["id"], {}).update(entry)
        for entry in begun.values():
            version = entry.get("version")
            found.append(
                Written(
                    entry["id"],
                    entry["key"],
                    entry["value"],
                    entry.get("outcome", ""),
                    tuple(version) if version else None,
                )
            )
    return found


def disagreements(writes: Iterable[Written], held: Mapping[str, Any]) -> list[str]:
    """Return, in words, every key under which *held* has what no order of the acknowledged writes explains."""
    by_key: defaultdict[str, list[Written]] = defaultdict(list)
    for write in writes:
        by_key[write.key].append(write)
    found = []
    for key, all_writes in sorted(by_key.items()):
        acknowledged = [write for write in all_writes if write.outcome == "ok"]
        open_writes = [write for write in all_writes if write.may_have_happened]
        versions = [write.version for write in acknowledged if write.version]
        if len(set(versions)) != len(versions):
            found.append(f"{key}: two acknowledged writes have one version")
        if key.startswith("counter:"):
            hits = (held.get(key) or {"hits": 0})["hits"]
            if not len(acknowledged) <= hits <= len(acknowledged) + len(open_writes):
                found.append(f"{key}: {hits} hits of {len(acknowledged)} acknowledged, {len(open_writes)} open")
            continue
        allowed = [write.value for write in open_writes]
        if acknowledged:
            allowed.append(max(acknowledged, key=lambda write: write.version or (0, 0)).value)
        else:
            allowed.append(ABSENT)
        if key.startswith("visit:"):
            allowed.append(ABSENT)
        if held.get(key) not in allowed:
            last = max(acknowledged, key=lambda write: write.version or (0, 0), default=None)
            found.append(f"{key}: holds {held.get(key)!r}, the last acknowledged write is {last}")
    return found
