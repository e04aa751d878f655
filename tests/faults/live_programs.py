"""Programs of a migration, each a process of its own; see ``live_spawner.py``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_POLL_S = 0.01
PATIENCE_S = 120.0
REPOSITORY = Path(__file__).resolve().parents[2]


class Program:
    """A program that was started."""

    def __init__(self, programs: Programs, process: int, log: Path) -> None:
        """Be the process with that number; *log* has what it says."""
        self._programs, self.process, self.log = programs, process, log

    @property
    def code(self) -> int | None:
        """How it ended, negative by which signal; ``None`` while it runs."""
        found: int | None = self._programs.ask({"poll": self.process})["code"]
        return found

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        with suppress(ProcessLookupError):
            os.kill(self.process, number)

    def wait(self, seconds: float = PATIENCE_S) -> int:
        """Wait for its end; return its code."""
        end = time.monotonic() + seconds
        while (code := self.code) is None:
            assert time.monotonic() < end, f"process {self.process} does not end: {self.log.read_text()[-2000:]}"
            time.sleep(_POLL_S)
        return code

    def kill(self) -> None:
        """End it without a farewell."""
        self.send(signal.SIGKILL)
        self.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; return its code."""
        self.send(number)
        return self.wait()


class Programs:
    """Starts programs. A context manager: leaving it ends them all."""

    def __init__(self) -> None:
        """Start what starts them."""
        self._spawner = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.live_spawner"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            text=True,
        )

    def start(self, kind: str, *arguments: str, environment: Mapping[str, str], log: Path) -> Program:
        """Start a program of a kind; everything that it says is appended to *log*."""
        asked = {"start": [kind, *arguments], "environment": dict(environment), "log": str(log)}
        return Program(self, self.ask(asked)["process"], log)

    def ask(self, what: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the spawner something."""
        assert self._spawner.stdin
        assert self._spawner.stdout
        self._spawner.stdin.write(json.dumps(what) + "\n")
        self._spawner.stdin.flush()
        answer: dict[str, Any] = json.loads(self._spawner.stdout.readline())
        return answer

    def close(self) -> None:
        """End all of them."""
        self._spawner.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
