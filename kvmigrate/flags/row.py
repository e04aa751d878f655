"""Flags in a row of the target, which every process looks at anyway."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from kvmigrate.flags.base import DocumentRow
from kvmigrate.flags.document import changed, read_document, to_document
from kvmigrate.intent import FlagChange, FlagState, ReadIntent, intent_text


class RowFlags:
    """Implements `kvmigrate.flags.base.FlagSource`."""

    interval_s = 0.2

    def __init__(self, row: DocumentRow, scope: str) -> None:
        """Read nothing yet; *scope* is the mapping's name. *row* is closed with this."""
        self._row, self._scope = row, scope

    @property
    def name(self) -> str:
        """The database without secrets."""
        return self._row.name

    def read(self) -> FlagState:
        """Return the flags; none where nobody set any."""
        return self.parsed(self._row.document())

    def parsed(self, document: Any) -> FlagState:
        """Return the flags of the row's document. Raises `ConfigError` where it is wrong."""
        return FlagState({}, "none") if document is None else read_document(document, self.name, self._scope)

    def latest(self, slugs: Sequence[str]) -> FlagState:
        """Return the flags as they are read."""
        del slugs
        return self.read()

    def change(self, slug: str, intent: ReadIntent, *, who: str, why: str) -> FlagChange:
        """Set one flag."""

        def make(document: Any) -> tuple[Any, str, str]:
            state = self.parsed(document)
            after = to_document(changed(state, slug, intent), self._scope)
            return after, intent_text(state.of(slug)), intent_text(intent)

        change = self._row.set_document(make, slug, who=who, why=why)
        return change._replace(at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"))

    def history(self, *, limit: int) -> Sequence[FlagChange]:
        """Return the newest changes."""
        return self._row.history(limit=limit)

    def close(self) -> None:
        """Close the row."""
        self._row.close()
