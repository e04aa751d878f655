"""What writers of several programs look at before each write: whether to write now, and what."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_S = 0.01


class Gate:
    """A folder that a test and its writers share."""

    def __init__(self, folder: Path) -> None:
        """Use *folder*; the gate is open where nobody closed it."""
        self._folder = folder
        self._closed, self._plain, self._within = folder / "closed", folder / "plain", folder / "within"

    @property
    def is_closed(self) -> bool:
        """Whether nobody may begin to write."""
        return self._closed.exists()

    @property
    def is_plain(self) -> bool:
        """Whether writers leave alone what makes items wait for each other."""
        return self._plain.exists()

    def keep_plain(self, *, plain: bool) -> None:
        """Ask for plain writes, or for all kinds."""
        if plain:
            self._plain.touch()
        else:
            self._plain.unlink(missing_ok=True)

    @contextmanager
    def passed(self) -> Iterator[bool]:
        """Be within while a write is under way; false where the gate is closed: ask again in a moment."""
        if self.is_closed:
            yield False
            return
        with self._within.open("a") as within:
            fcntl.flock(within, fcntl.LOCK_SH)
            # It may have been closed a moment ago.
            yield not self.is_closed

    @contextmanager
    def closed(self, *, patience_s: float = 60.0) -> Iterator[None]:
        """Keep all writers out; whoever is within ends its write first."""
        self._closed.touch()
        try:
            end = time.monotonic() + patience_s
            while self._is_anybody_within():
                assert time.monotonic() < end, "a writer does not end its write"
                time.sleep(_POLL_S)
            yield
        finally:
            self._closed.unlink()

    def _is_anybody_within(self) -> bool:
        # Programs without locks leave a file there while they are within.
        if any(self._folder.glob("within.*")):
            return True
        with self._within.open("a") as within:
            try:
                fcntl.flock(within, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False
