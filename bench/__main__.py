"""Every benchmark in turn: ``python -m bench``."""

from __future__ import annotations

from bench import bulk, lens, live, reads, verify

if __name__ == "__main__":
    lens.main()
    print()
    bulk.main(["--scale", "0.05", "--rounds", "3", "--scenarios", "first", "again", "merge", "verify"])
    print()
    verify.main()
    print()
    live.main(["--scale", "0.1"])
    print()
    reads.main(["--scale", "0.1", "--rounds", "3"])
