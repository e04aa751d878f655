"""``python -m kvmigrate.demo.celebration SIZE STORE_URL``: make the shop and say what is wrong in it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from kvmigrate.demo.celebration.defects import DEFECTS
from kvmigrate.demo.celebration.manifest import Manifest
from kvmigrate.demo.celebration.store import MIN_SIZE, Celebration
from kvmigrate.errors import KVMigrateError
from kvmigrate.model import Bin
from kvmigrate.stores.load import load
from kvmigrate.stores.url import parse_source_url


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill a store and print the books. Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        name = parse_source_url(options.store).name
        shop = Celebration(options.seed, options.size, jsonb=name.startswith("postgres"))
        load(shop, options.store)
    except (KVMigrateError, ValueError) as exc:
        sys.stderr.write(f"error: {exc}\n")
        if isinstance(exc, KVMigrateError) and exc.hint:
            sys.stderr.write(f"hint:  {exc.hint}\n")
        return exc.exit_code if isinstance(exc, KVMigrateError) else 2
    sys.stdout.write(describe(shop.manifest, name))
    if options.manifest:
        options.manifest.write_text(json.dumps(shop.manifest.to_json(), indent=2, ensure_ascii=False) + "\n")
    return 0


def describe(books: Manifest, name: str) -> str:
    """Return the books as text: the bins that a run must report, and every defect with an example."""
    lines = [f"{books.scanned:,} keys written to {name}; a run must end with"]
    lines += [f"  {where:<12}{books.bins[where]:>10,}" for where in Bin if where is not Bin.VANISHED]
    lines.append("because of")
    for defect, known in DEFECTS.items():
        if count := books.defects[defect]:
            lines.append(f"  {count:>10,}  {known.bin:<12}{known.what}   e.g. {books.examples[defect][0]}")
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kvmigrate.demo.celebration", description=__doc__)
    parser.add_argument("size", type=int, help=f"keys in all, at least {MIN_SIZE}")
    parser.add_argument(
        "store", help="redis://host/0, postgresql://host/db?table=kv, sqlite:///f.db?table=kv, file:///f.ndjson"
    )
    parser.add_argument("--seed", type=int, default=1, help="another seed makes another shop (default 1)")
    parser.add_argument("--manifest", type=Path, help="write the books to this JSON file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
