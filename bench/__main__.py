"""Every benchmark in turn: ``python -m bench``."""

from __future__ import annotations

from bench import backfill, lens, verify

if __name__ == "__main__":
    lens.main()
    print()
    backfill.main()
    print()
    verify.main()
