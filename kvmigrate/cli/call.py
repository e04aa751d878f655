"""One command that runs: when it began, what it says, how it ends."""

from __future__ import annotations

import datetime as dt
import io
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, TextIO

import typer

from kvmigrate.errors import ConfigError
from kvmigrate.report.document import Document

if TYPE_CHECKING:
    from kvmigrate.cli.progress import ProgressLine
    from kvmigrate.transform.mapping import Mapping as MappingFile


class Call:
    """A command from its start to its exit code.

    Args:
        command: Its name, as in the envelope.

        as_json: Print the envelope on stdout and everything else on stderr.
    """

    def __init__(self, command: str, *, as_json: bool) -> None:
        self.command = command
        self.as_json = as_json
        self._started_at = dt.datetime.now(dt.UTC)
        self._begin = time.monotonic()

    def progress(self) -> ProgressLine:
        """Return a progress display on stderr; it is a context manager."""
        from kvmigrate.cli.progress import ProgressLine

        return ProgressLine(sys.stderr, as_json=self.as_json)

    def envelope(
        self,
        fields: Mapping[str, Any],
        *,
        mapping: MappingFile | None = None,
        run_id: int | None = None,
        warnings: Sequence[str] = (),
        next_commands: Sequence[str] = (),
        ok: bool = True,
    ) -> dict[str, Any]:
        """Return *fields* beside those that every command has; times in UTC."""
        return {
            "version": version("kvmigrate"),
            "command": self.command,
            "ok": ok,
            "scope": mapping.name if mapping else None,
            "fingerprint": mapping.fingerprint if mapping else None,
            "run_id": run_id,
            "started_at": self._started_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "duration_s": round(time.monotonic() - self._begin, 3),
            "warnings": list(warnings),
            "next": list(next_commands),
            **fields,
        }

    def finish(self, envelope: Mapping[str, Any], shown: Document | str, *, exit_code: int = 0) -> NoReturn:
        """Print the envelope or what people see, and end with *exit_code*."""
        self.show(envelope, shown)
        raise typer.Exit(exit_code)

    def show(self, envelope: Mapping[str, Any], shown: Document | str) -> None:
        """Print the envelope or what people see."""
        if self.as_json:
            print_json(envelope)
        else:
            sys.stdout.write(as_text(shown, colours=sys.stdout.isatty()))
        sys.stdout.flush()

    def finish_beside_data(self, envelope: Mapping[str, Any], shown: Document | str, *, exit_code: int = 0) -> NoReturn:
        """As `finish`, but on stderr, because stdout holds the data itself."""
        if self.as_json:
            sys.stderr.write(json.dumps(envelope, ensure_ascii=False) + "\n")
        else:
            sys.stderr.write(as_text(shown, colours=sys.stderr.isatty()))
        raise typer.Exit(exit_code)


@contextmanager
def binary_output(path: Path | None) -> Iterator[BinaryIO]:
    """Yield a file to write to, or stdout. Raises `ConfigError` where there can be no such file."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        out = path.open("wb")
    except OSError as exc:
        raise ConfigError(f"cannot write {str(path)!r}: {exc.strerror}", hint="-o takes a file") from exc
    with out:
        yield out


@contextmanager
def text_output(path: Path | None) -> Iterator[TextIO]:
    """Yield a UTF-8 text to write to. See `binary_output`."""
    with binary_output(path) as out:
        text = io.TextIOWrapper(out, encoding="utf-8", newline="\n")
        try:
            yield text
        finally:
            text.flush()
            text.detach()


def write_text(path: Path, text: str) -> None:
    """Write *text* to a file. See `binary_output`."""
    with text_output(path) as out:
        out.write(text)


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object as one line."""
    # ASCII only: a key may hold what the terminal's encoding lacks.
    sys.stdout.write(json.dumps(value, ensure_ascii=True) + "\n")


def as_text(shown: Document | str, *, colours: bool) -> str:
    """Return what people see."""
    if isinstance(shown, str):
        return shown
    from kvmigrate.report.text import render_text

    return render_text(shown, colours=colours)
