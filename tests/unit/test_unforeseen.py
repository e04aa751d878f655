"""Failures that nobody foresaw, as they are told by a library whose application never configured a log."""

from pathlib import Path

import pytest
import structlog

from kvmigrate.dualwrite.breaker import Breaker
from kvmigrate.dualwrite.mirror import Mirror, Mirrored
from kvmigrate.model import Item, Version


class _Broken:
    """Tables that fail as nothing should."""

    def mirror(self, item: Item | None, key: str, version: Version, *, deadline_s: float) -> bool:
        """Fail with the value in hand."""
        url = "redis://user:secret@host"
        raise ZeroDivisionError(item, key, version, deadline_s, url)


def test_no_value_and_no_secret_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The way to the failure is, though a renderer would show every variable on it."""
    structlog.reset_defaults()
    mirror = Mirror(_Broken(), Breaker())  # type: ignore[arg-type]  # only what is called here

    found = mirror.bring(Item("client:1", b'{"name":"Ada"}'), "client:1", Version(1, 2), deadline_s=1.0)

    said = "".join(capsys.readouterr())
    assert Mirrored.LEFT is found
    assert ("ZeroDivisionError" in said, Path(__file__).name in said) == (True, True)
    assert ("Ada" in said, "secret@" in said) == (False, False)
