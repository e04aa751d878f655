"""Flags in a file, YAML or JSON, which processes look at all the time. Its history stands beside it."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from kvmigrate.errors import ConfigError
from kvmigrate.flags.document import changed, read_document, to_document
from kvmigrate.flags.written import one_writer, replace_text
from kvmigrate.intent import FlagChange, FlagState, ReadIntent, intent_text

_MOST_BYTES = 1 << 20
_SETTLED_S = 1.0


class FileFlags:
    """Implements `kvmigrate.flags.base.FlagSource`. The file is read again only where it changed."""

    interval_s = 0.1

    def __init__(self, file: Path, scope: str) -> None:
        """Read nothing yet; *scope* is the mapping's name."""
        self._file, self._scope = file, scope
        self.name = str(file)
        self._seen: tuple[int, int, int] | None = None
        self._state: FlagState | None = None

    def read(self) -> FlagState:
        """Return the flags of the file. Raises `ConfigError` where it is absent or wrong."""
        try:
            about = self._file.stat()
        except OSError as exc:
            raise self._unreadable(exc) from exc
        seen = (about.st_ino, about.st_mtime_ns, about.st_size)
        if self._state is None or seen != self._seen:
            self._state = self._parsed()
            # Written twice within one tick of the file system's clock, it looks the same: so look again for a while.
            self._seen = seen if time.time() - about.st_mtime > _SETTLED_S else None
        return self._state

    def latest(self, slugs: Sequence[str]) -> FlagState:
        """Return the flags of the file; none where there is no file yet, as the first change makes it."""
        del slugs
        return self.read() if self._file.exists() else FlagState({})

    def change(self, slug: str, intent: ReadIntent, *, who: str, why: str) -> FlagChange:
        """Set one flag; comments in the file are lost."""
        with one_writer(self._file):
            state = self._parsed() if self._file.exists() else FlagState({})
            return self._write(state, slug, intent, who=who, why=why)

    def history(self, *, limit: int) -> Sequence[FlagChange]:
        """Return the newest changes that were made with `change`."""
        try:
            lines = self._log.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise self._unreadable(exc) from exc
        try:
            return [FlagChange(**json.loads(line)) for line in reversed(lines[-limit:])]
        except (ValueError, TypeError) as exc:
            raise ConfigError(f"{self._log} holds what is no change: {exc}", hint="move it away, or mend it") from exc

    def close(self) -> None:
        """Nothing is open."""

    @property
    def _log(self) -> Path:
        return self._file.with_name(f"{self._file.name}.history.ndjson")

    def _write(self, state: FlagState, slug: str, intent: ReadIntent, *, who: str, why: str) -> FlagChange:
        at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        change = FlagChange(at, who, slug, intent_text(state.of(slug)), intent_text(intent), why)
        document = to_document(changed(state, slug, intent), self._scope)
        is_json = self._file.suffix == ".json"
        text = json.dumps(document, indent=2) + "\n" if is_json else yaml.safe_dump(document, sort_keys=False)
        # First the record: a change that nobody can account for is worse than a record of one that failed.
        try:
            with self._log.open("a", encoding="utf-8") as out:
                out.write(json.dumps(change._asdict()) + "\n")
        except OSError as exc:
            raise ConfigError(f"cannot write {str(self._log)!r}: {exc.strerror}", hint="check its rights") from exc
        replace_text(self._file, text)
        return change

    def _parsed(self) -> FlagState:
        try:
            with self._file.open("rb") as opened:
                text = opened.read(_MOST_BYTES + 1)
        except OSError as exc:
            raise self._unreadable(exc) from exc
        if len(text) > _MOST_BYTES:
            raise ConfigError(f"{self._file}: more than {_MOST_BYTES:,} bytes are no flags", hint="check --flags")
        return read_document(_loaded(text, self._file), str(self._file), self._scope)

    def _unreadable(self, exc: OSError) -> ConfigError:
        hint = "kvmigrate flags init writes it" if isinstance(exc, FileNotFoundError) else "check --flags"
        return ConfigError(f"cannot read {str(self._file)!r}: {exc.strerror}", hint=hint)


def _loaded(text: bytes, file: Path) -> Any:
    try:
        return json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as exc:
        told = " ".join(str(exc).split())
        raise ConfigError(f"{file}: neither YAML nor JSON: {told}", hint="kvmigrate flags lint") from exc
