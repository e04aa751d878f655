"""How the program ends: every error becomes one message, one hint and one exit code."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Any, cast

import typer
from typer.core import TyperGroup

from kvmigrate.cli.call import print_json
from kvmigrate.cli.start import INTERRUPTED
from kvmigrate.errors import KVMigrateError

# typer may carry its own click, so the class is found where it is certain: above one that typer exports.
_PARSE_ERROR = cast("type[Exception]", typer.BadParameter.__mro__[2])


class _InterruptedError(Exception):
    """Ctrl-C, so that it is told from other ways of giving up."""


class KVMigrateGroup(TyperGroup):
    """Turn a deliberate error into one message, one hint, and its exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; Ctrl-C becomes an error like others."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _InterruptedError from None

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Run the program and return its exit code; *standalone_mode* has no effect."""
        args = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        ending = _Ending(as_json="--json" in args, debug="--debug" in args)
        try:
            return super().main(args, *rest, **extra) or 0
        except KVMigrateError as exc:
            return ending.expected(exc)
        except _PARSE_ERROR as exc:
            return ending.usage(exc)
        except _InterruptedError:
            return ending.failed(
                INTERRUPTED, "interrupted", "interrupted", "the same command goes on where this one ended"
            )
        except typer.Abort:
            return ending.failed(1, "aborted", "nothing was done", "")
        except Exception as exc:  # noqa: BLE001 - the last place where an error can become one line
            return ending.unexpected(exc)


class _Ending:
    """Says how the program failed, for people or for programs, and with which exit code."""

    def __init__(self, *, as_json: bool, debug: bool) -> None:
        self._as_json, self._debug = as_json, debug

    def expected(self, exc: KVMigrateError) -> int:
        if self._debug:
            traceback.print_exception(exc)
        return self.failed(exc.exit_code, exc.code, str(exc), exc.hint, key=exc.key, path=exc.path)

    def usage(self, exc: Exception) -> int:
        message = exc.format_message() if hasattr(exc, "format_message") else str(exc)
        command = getattr(getattr(exc, "ctx", None), "command_path", "kvmigrate")
        if not message.startswith("Usage:"):
            return self.failed(2, "usage", message.rstrip("."), f"{command} --help")
        if self._as_json:
            return self.failed(2, "usage", f"{command}: no command is named", f"{command} --help")
        # Somebody who typed no command wants to see what there is: the help is no error message.
        sys.stderr.write(message.rstrip() + "\n")
        return 2

    def unexpected(self, exc: Exception) -> int:
        if self._debug:
            traceback.print_exception(exc)
        message = " ".join(f"{type(exc).__name__}: {exc}".split())
        hint = "" if self._debug else "this is a fault of kvmigrate; kvmigrate --debug COMMAND ... shows where"
        return self.failed(1, "unexpected", message, hint)

    def failed(
        self, exit_code: int, code: str, message: str, hint: str, *, key: str | None = None, path: str | None = None
    ) -> int:
        if self._as_json:
            print_json({"error": {"code": code, "message": message, "key": key, "path": path, "hint": hint}})
        else:
            sys.stderr.write(f"error: {message}\n")
            if hint:
                sys.stderr.write("hint:  " + hint.replace("\n", "\n       ") + "\n")
        return exit_code
