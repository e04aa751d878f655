"""Every benchmark in turn: ``python -m bench``."""

from __future__ import annotations

from bench import bulk, divergence, lens, live, reads, sampler_memory, tables, verify

if __name__ == "__main__":
    lens.main()
    print()
    bulk.main(["--scale", "0.05", "--rounds", "3", "--scenarios", "first", "again", "merge", "verify"])
    print()
    verify.main()
    print()
    divergence.main(["--rounds", "3", "--seconds", "2"])
    print()
    tables.main(["--rows", "100000"])
    print()
    sampler_memory.main(["--keys", "20000", "200000"])
    print()
    live.main(["--scale", "0.1"])
    print()
    reads.main(["--scale", "0.1", "--rounds", "3"])
