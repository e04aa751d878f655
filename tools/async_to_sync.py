"""Generate the sync twin of every authored ``*_async.py``, or with ``--check`` tell whether the twins are current.

One plain substitution table, whole words only. A rule that no file uses is an error: it would hide a change.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

TWINS: tuple[str, ...] = (
    "kvmigrate/dualwrite/commands_async.py",
    "kvmigrate/dualwrite/fence_async.py",
    "kvmigrate/dualwrite/mirror_async.py",
    "kvmigrate/dualwrite/paths_async.py",
    "kvmigrate/dualwrite/served_async.py",
    "kvmigrate/dualwrite/store_async.py",
    "kvmigrate/dualwrite/way_async.py",
    "kvmigrate/reads/by_key_async.py",
    "kvmigrate/reads/endpoint_async.py",
    "kvmigrate/reads/examine_async.py",
    "kvmigrate/reads/pages_async.py",
    "kvmigrate/reads/reads_async.py",
    "kvmigrate/reads/standby_tables_async.py",
    "kvmigrate/stores/client_base_async.py",
    "kvmigrate/stores/redis_call_async.py",
    "kvmigrate/stores/redis_client_calls_async.py",
    "kvmigrate/stores/redis_client_link_async.py",
    "kvmigrate/stores/redis_clients_async.py",
    "kvmigrate/stores/redis_cluster_call_async.py",
    "kvmigrate/stores/redis_cluster_drop_in_async.py",
    "kvmigrate/stores/redis_cluster_link_async.py",
    "kvmigrate/stores/redis_cluster_pipeline_async.py",
    "kvmigrate/stores/redis_drop_in_async.py",
    "kvmigrate/stores/redis_nodes_async.py",
    "kvmigrate/stores/redis_slot_calls_async.py",
    "kvmigrate/stores/redis_writer_async.py",
    "kvmigrate/stores/writer_base_async.py",
    "kvmigrate/target/live_writer_async.py",
    "kvmigrate/target/row_query_async.py",
    "kvmigrate/target/writer_base_async.py",
    "kvmigrate/testing/memory_writer_async.py",
    "kvmigrate/testing/strict_reads_async.py",
)
"""Authored modules; each writes the module of the same name without ``_async``."""

BY_HAND = (
    "kvmigrate/migration_async.py",
    "kvmigrate/reads/shadow_async.py",
    "kvmigrate/reads/within_async.py",
    "kvmigrate/stores/redis_turns_async.py",
    "kvmigrate/target/timed_async.py",
)
"""Modules that differ from those without ``_async`` by more than that."""

RULES: tuple[tuple[str, str], ...] = (
    (r"async def ", "def "),
    (r"async with ", "with "),
    (r"async for ", "for "),
    (r"await ", ""),
    (r"Awaitable\[([\w| ]+)\]", r"\1"),
    (r"aclose", "close"),
    (r"disconnect\(nowait=True\)", "disconnect()"),
    (r"redis\.asyncio", "redis"),
    (r"asyncio\.sleep\b", "time.sleep"),
    (r"asyncio\.to_thread\(([\w.]+)\)", r"\1()"),
    (r"asyncio\.wait_for\(asyncio\.wrap_future\((\w+)\), ([\w.]+)\)", r"\1.result(\2)"),
    (r"import asyncio\b", "import time"),
    (r" has a generated twin without ``await``", " is the generated twin"),
    (r"_async\b", ""),
    (r"Async(?=[A-Z])", ""),
)
"""Pattern and what stands in its place; the last ones are names. First come first."""

HEADER = """# This file is generated from {name} by tools/async_to_sync.py.
# Change that one instead.
"""


def twin_of(authored: Path) -> Path:
    """Return where the twin of *authored* stands."""
    return authored.with_name(authored.name.replace("_async", ""))


def generate(authored: Path, used: set[str]) -> str:
    """Return the twin's text; *used* gains the patterns that met something."""
    text = authored.read_text(encoding="utf-8")
    for pattern, replacement in RULES:
        text, count = re.subn(rf"\b{pattern}" if pattern[0].isalnum() else pattern, replacement, text)
        if count:
            used.add(pattern)
    header = HEADER.format(name=authored.name)
    ruff = Path(sys.executable).with_name("ruff")
    name = str(twin_of(authored))
    for command in (["check", "--quiet", "--select", "I,F401", "--fix-only"], ["format", "--quiet"]):
        done = subprocess.run(
            [ruff, *command, "--stdin-filename", name, "-"], input=text, capture_output=True, text=True, check=True
        )
        text = done.stdout
    return header + text


def main() -> int:
    """Write or check all twins."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a twin is not current")
    check = parser.parse_args().check
    used: set[str] = set()
    stale = []
    for name in TWINS:
        authored = ROOT / name
        text, twin = generate(authored, used), twin_of(authored)
        if not twin.exists() or twin.read_text(encoding="utf-8") != text:
            stale.append(str(twin.relative_to(ROOT)))
            if not check:
                twin.write_text(text, encoding="utf-8")
    unused = [pattern for pattern, _ in RULES if pattern not in used] if TWINS else []
    for pattern in unused:
        print(f"error: no authored file needs the rule {pattern!r}; take it out")
    for name in stale:
        print(f"error: {name} is not current; run tools/async_to_sync.py" if check else f"wrote {name}")
    return 1 if unused or (check and stale) else 0


if __name__ == "__main__":
    sys.exit(main())
