"""Runs a command and tells what it cost: seconds, and CPU of client, Redis and PostgreSQL.

Linux only: CPU seconds of servers are read from ``/proc``.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, NamedTuple

import psycopg
import redis

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """What one run cost.

    Attributes:
        client_s, redis_s, postgres_s: CPU seconds; of the client with every process it started.

        peak_mb: Resident memory of the client's largest process. As a process begins
            as a copy of the one that starts it, less than the benchmark's own is not seen.
    """

    wall_s: float
    client_s: float
    redis_s: float
    postgres_s: float
    peak_mb: float

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all three together."""
        return self.client_s + self.redis_s + self.postgres_s

    def times(self, factor: float) -> Cost:
        """Return the cost of *factor* times the work; memory does not grow."""
        return Cost(
            self.wall_s * factor,
            self.client_s * factor,
            self.redis_s * factor,
            self.postgres_s * factor,
            self.peak_mb,
        )


class Ran(NamedTuple):
    """A finished run: its cost and what it printed, complaints aside."""

    cost: Cost
    output: str


class Meter:
    """Looks at the two servers while commands run."""

    def __init__(self, postgres_url: str, redis_url: str | None) -> None:
        """Find the servers' processes, which must be on this machine."""
        self.postgres_url = postgres_url
        with psycopg.connect(postgres_url) as connection:
            text = connection.execute("SELECT pg_read_file('postmaster.pid')").fetchall()[0][0]
        self.postgres = int(text.split()[0])
        self.redis: int | None = None
        if redis_url:
            with redis.Redis.from_url(redis_url) as client:
                self.redis = int(client.info("server")["process_id"])

    def run(self, command: Sequence[str]) -> Ran:
        """Run *command* in a process of its own.

        Raises:
            SystemExit: it failed; the message is the end of all that it printed.
        """
        with psycopg.connect(self.postgres_url, autocommit=True) as connection:
            connection.execute("CHECKPOINT")
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            before = self._servers()
            started = time.perf_counter()
            process = subprocess.Popen(command, stdout=output, stderr=errors)
            _, status, used = os.wait4(process.pid, 0)
            wall_s = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            after = self._servers()
            text, complaint = _text(output), _text(errors)
        if process.returncode:
            raise SystemExit(
                f"{' '.join(command[:4])} ... ended with {process.returncode}:\n{(text + complaint)[-2_000:]}"
            )
        client_s = used.ru_utime + used.ru_stime
        redis_s, postgres_s = after[0] - before[0], after[1] - before[1]
        return Ran(Cost(wall_s, client_s, redis_s, postgres_s, used.ru_maxrss / 1024), text)

    def _servers(self) -> tuple[float, float]:
        return cpu_s(self.redis) if self.redis else 0.0, family_cpu_s(self.postgres)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of one process, without those it started; 0 if it has ended."""
    return sum(_times(pid)[:2]) / _TICKS


def family_cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process, of its children that live, and of those that ended.

    A backend that ended and was not waited for yet still stands among the children; one that was
    waited for counts in its parent's times.
    """
    children = _children(pid)
    return (sum(_times(pid)) + sum(sum(_times(child)[:2]) for child in children)) / _TICKS


def _times(pid: int) -> tuple[int, ...]:
    """Return utime, stime, cutime and cstime in ticks."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return (0, 0, 0, 0)
    # The command's name stands in parentheses and may hold spaces.
    return tuple(map(int, stat.rpartition(")")[2].split()[11:15]))


def _children(pid: int) -> list[int]:
    tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]
