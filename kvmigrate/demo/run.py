"""The demo: a shop's store becomes tables, and the books of the shop say whether nothing was lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kvmigrate.backfill.progress import Progress
from kvmigrate.config import Settings
from kvmigrate.demo.celebration import Celebration, mapping_path
from kvmigrate.demo.divergence import prove_live
from kvmigrate.demo.live_stage import go_live
from kvmigrate.demo.question import ask
from kvmigrate.demo.servers import DemoServers
from kvmigrate.demo.shift import shift_reads
from kvmigrate.migration import Migration
from kvmigrate.model import Bin, Item
from kvmigrate.stores.load import load

SEED = 1
_LIST_PREFIX = "catalog_gifts:"


@dataclass(slots=True)
class DemoReport:
    """What the demo did and found.

    Attributes:
        steps: Names of the steps and how long each took, in seconds.

        books: What the generator injected, from its manifest.

        checks: What was injected against what the run reported.

        reads: What became of reads that moved; see `shift_reads`. ``None`` where the demo did not go live.

        live: What the sampler found while both stores were written; likewise.
    """

    store: str
    postgres: str
    size: int
    note: str = ""
    steps: list[tuple[str, float]] = field(default_factory=list)
    books: dict[str, Any] = field(default_factory=dict)
    backfill: dict[str, Any] = field(default_factory=dict)
    verify: dict[str, Any] = field(default_factory=dict)
    question: dict[str, Any] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)
    live: dict[str, Any] | None = None
    divergent: bool = False
    reads: dict[str, Any] | None = None

    @property
    def ok(self) -> bool:
        """Whether all that was injected is reported, no request failed, and both stores say the same."""
        served = not (self.reads and self.reads.get("failed"))
        is_live_right = self.live is None or self.live["ok"]
        return served and not self.divergent and is_live_right and all(check["ok"] for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return the report's fields for the JSON envelope."""
        return {
            "store": self.store,
            "postgres": self.postgres,
            "size": self.size,
            "note": self.note,
            "steps": [{"name": name, "duration_s": round(seconds, 3)} for name, seconds in self.steps],
            "injected": self.books["defects"],
            "checks": self.checks,
            "backfill": self.backfill,
            "verify": self.verify,
            "question": self.question,
            "reads": self.reads,
            "live": self.live,
        }


def demo_settings(servers: DemoServers) -> Settings:
    """Return the settings under which the demo runs."""
    return Settings(servers.source, servers.target, mapping_path())


def run_demo(
    servers: DemoServers, *, size: int, progress: Progress, say: Callable[[str], None], live: bool = True
) -> DemoReport:
    """Fill the store with *size* keys, migrate it, verify it, and compare the reports with the shop's books.

    Args:
        servers: An empty store and an empty database.

        size: Keys in all.

        progress: Called while the long steps run.

        say: Gets one line at the beginning of each step.

        live: Go on while writes go on, where the store is a Redis.

    Raises:
        KVMigrateError: a step failed.
    """
    report = DemoReport(servers.store, servers.postgres, size, servers.note)
    shop = Celebration(SEED, size, jsonb=servers.jsonb)
    lists: list[str] = []
    with Migration.open(demo_settings(servers)) as migration:
        with _step(report, say, f"filling {servers.store} with {size:,} keys of a gift shop"):
            load(_noting_lists(shop, lists), servers.source)
        with _step(report, say, f"making the tables of {len(migration.mapping.entities)} entities in PostgreSQL"):
            migration.apply_schema()
        with _step(report, say, "backfill: the store into the tables, then everything once more"):
            report.backfill = migration.backfill(progress=progress).to_json()
        with _step(report, say, "verify: every item rebuilt from its rows and compared with the store"):
            found = migration.verify(progress=progress)
            report.verify, report.divergent = found.to_json(), found.divergent
        with _step(report, say, "one question, asked of the store and of the tables"):
            report.question = ask(migration, lists[0])
        if live and not servers.jsonb:
            with _step(report, say, "going live: every write leaves a mark, and goes to both stores"):
                go_live(migration)
            with _step(report, say, "a service whose reads move to the tables, and back"):
                report.reads = shift_reads(migration, say)
            with _step(report, say, "a sampler beside writers of both stores"):
                report.live = prove_live(migration, say)
    report.books = shop.manifest.to_json()
    report.checks = list(_checks(report))
    return report


@contextmanager
def _step(report: DemoReport, say: Callable[[str], None], name: str) -> Iterator[None]:
    say(name)
    begin = time.monotonic()
    yield
    report.steps.append((name, time.monotonic() - begin))


def _noting_lists(shop: Celebration, lists: list[str]) -> Iterator[Item]:
    """Yield the shop's items and remember the index keys of catalogs."""
    for item in shop:
        if item.key.startswith(_LIST_PREFIX):
            lists.append(item.key)
        yield item


def _checks(report: DemoReport) -> Iterator[dict[str, Any]]:
    """Yield each number of the books beside the number that the run reported."""
    books, run = report.books, report.backfill
    for each in ("scanned", *Bin):
        yield _check("keys", each, books["expected"][each], run[each])
    for reason, count in books["quarantine_reasons"].items():
        yield _check("quarantined for", reason, count, run["quarantine_reasons"].get(reason, 0))
    for table, count in books["rows"].items():
        yield _check("rows of", table, count, run["rows"].get(table, 0))
    reported = {each["name"]: each for each in run["pointers"]}
    for pointer in books["pointers"]:
        for count in ("dangling", "unlisted"):
            yield _check(
                f"{count} in", pointer["name"], pointer[count], reported.get(pointer["name"], {}).get(count, 0)
            )


def _check(what: str, name: str, injected: int, reported: int) -> dict[str, Any]:
    return {"what": what, "name": str(name), "injected": injected, "reported": reported, "ok": injected == reported}
