"""The compiled code of this package, where it was built; Python does its work elsewhere."""

from __future__ import annotations

from types import ModuleType

LAYOUT = 2
"""What the compiled module must say of itself, so that one of other sources is never used."""


def find_native() -> ModuleType | None:
    """Return the compiled module, or ``None`` where it was not built from these sources."""
    try:
        from kvmigrate.consistency import _walk  # noqa: PLC0415 - it may be absent
    except ImportError:
        return None
    return _walk if getattr(_walk, "LAYOUT", 0) == LAYOUT else None


native = find_native()
"""The compiled module, or ``None``."""
