"""Small files that others read while they are written: replaced whole, one writer at a time."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvmigrate.errors import ConfigError


def replace_text(file: Path, text: str) -> None:
    """Put *text* in the place of a file's content, so that nobody ever reads a part of it. Raises `ConfigError`."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(6)}")
    try:
        with draft.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)
    except OSError as exc:
        draft.unlink(missing_ok=True)
        raise ConfigError(f"cannot write {str(file)!r}: {exc.strerror}", hint="check its folder and rights") from exc


@contextmanager
def one_writer(file: Path) -> Iterator[None]:
    """Let no other process change *file* meanwhile. Raises `ConfigError` where its folder cannot be written."""
    try:
        lock = file.with_name(f".{file.name}.lock").open("w")
    except OSError as exc:
        raise ConfigError(f"cannot write {str(file)!r}: {exc.strerror}", hint="check its folder and rights") from exc
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
