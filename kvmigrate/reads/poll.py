"""A thread that looks at one thing again and again, and never raises."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Protocol

from kvmigrate.errors import KVMigrateError
from kvmigrate.log import get_log

_log = get_log()


class Look(Protocol):
    """What is looked at; opened, used and closed in the one thread."""

    def look(self) -> None:
        """Look, and tell. It may take its time, and raise."""
        ...

    def close(self) -> None:
        """Release what is open."""
        ...


class Poller:
    """A daemon thread that looks every so often. What it looks at may hang: nobody waits for it."""

    def __init__(self, what: str, open_look: Callable[[], Look], every_s: float) -> None:
        """Begin nothing yet; *what* is for messages."""
        self._what, self._open, self._every_s = what, open_look, every_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failing = ""

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name=f"kvmigrate-{self._what}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the look under way; it is not waited for."""
        self._stop.set()

    def wait(self, timeout_s: float) -> None:
        """Wait so long at most until it ended."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        look: Look | None = None
        while not self._stop.is_set():
            begun = monotonic()
            try:
                look = look or self._open()
                look.look()
            except KVMigrateError as exc:
                self._told(str(exc))
            except Exception as exc:  # noqa: BLE001 - a thread that ends would leave everybody with old news
                self._told(f"{type(exc).__name__}: {exc}")
            else:
                if self._failing:
                    _log.info("it can be looked at again", what=self._what)
                self._failing = ""
            self._stop.wait(max(self._every_s - (monotonic() - begun), self._every_s / 4))
        if look is not None:
            with suppress(Exception):
                look.close()

    def _told(self, why: str) -> None:
        """Say it once, not at every look."""
        if why != self._failing:
            _log.warning("what decides of reads cannot be looked at", what=self._what, why=why)
        self._failing = why
