"""The example's service as a process of its own, and clients that ask it all the time."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from kvmigrate.config import CONFIG_FILE, Settings
from kvmigrate.demo.celebration.example import EXAMPLES
from kvmigrate.errors import ServerError
from kvmigrate.stores.base import KVSource, ScanRequest, nothing

CLIENTS = 4
REST_S = 0.02
"""Of a client, after each request."""

_START_S = 60.0
_QUIET_S = 0.4
_KINDS = ("client", "catalog_gifts", "gift")
_MOST_IDS = 40
_TABLES = re.compile(r'^kvmigrate_reads_total\{.*side="tables".*\} (\d+)$', re.MULTILINE)


class Asked(NamedTuple):
    """What clients have asked so far, and how much of it was not answered well."""

    requests: int
    failed: int


class Service:
    """A service under load."""

    def __init__(self, port: int, paths: Sequence[str]) -> None:
        """Ask the service at *port* of this machine for *paths*."""
        self._port, self._paths = port, paths
        self._stop = threading.Event()
        self._asked, self._failed = [0] * CLIENTS, [0] * CLIENTS
        self._threads = [
            threading.Thread(target=self._ask, args=(number,), name="kvmigrate-demo-client", daemon=True)
            for number in range(CLIENTS)
        ]

    def asked(self) -> Asked:
        """Return what was asked so far."""
        return Asked(sum(self._asked), sum(self._failed))

    def last_read_of_tables(self) -> float:
        """Wait until nobody reads the tables, and return when somebody did last, by `time.monotonic`.

        Raises:
            ServerError: it does not end.
        """
        end = time.monotonic() + _START_S
        last, counted = time.monotonic(), self._read_from_tables()
        while time.monotonic() - last < _QUIET_S:
            if time.monotonic() > end:
                raise ServerError("the service still reads the tables", hint="kvmigrate rollback")
            time.sleep(0.02)
            if (found := self._read_from_tables()) != counted:
                last, counted = time.monotonic(), found
        return last

    def start(self) -> None:
        """Let clients ask."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let them end."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _read_from_tables(self) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", "/metrics")
            return sum(map(int, _TABLES.findall(connection.getresponse().read().decode())))
        finally:
            connection.close()

    def _ask(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        while not self._stop.wait(REST_S):
            turn = self._asked[number]
            try:
                path = self._paths[(turn * CLIENTS + number) % len(self._paths)]
                connection.request("GET", path, headers={"X-Client": f"{number}-{turn % 500}"})
                answer = connection.getresponse()
                json.loads(answer.read())
                self._failed[number] += answer.status != http.HTTPStatus.OK
            except (OSError, ValueError, http.client.HTTPException):
                self._failed[number] += 1
                connection.close()
            self._asked[number] += 1
        connection.close()


@contextmanager
def service_over(settings: Settings, folder: Path, paths: Sequence[str]) -> Iterator[Service]:
    """Run the example's service in *folder*, and ask it for *paths*, until the block ends.

    Raises:
        ServerError: it does not start.
    """
    _write_settings(settings, folder / CONFIG_FILE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "service.log"
    with resources.as_file(resources.files(EXAMPLES) / "celebration") as code, log.open("wb") as out:
        command = [sys.executable, "-m", "uvicorn", "--app-dir", str(code), "--port", str(port), "service:app"]
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out)  # noqa: S603 - a program of our own
        try:
            _wait_for(process, port, log)
            service = Service(port, paths)
            service.start()
            try:
                yield service
            finally:
                service.stop()
        finally:
            process.terminate()
            process.wait(_START_S)


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise ServerError(
        f"the service does not start: {log.read_text(errors='replace')[-500:]}", hint="kvmigrate demo --no-reads"
    )


def _write_settings(settings: Settings, file: Path) -> None:
    file.touch(mode=0o600)
    said = {name: str(getattr(settings, name)) for name in ("source", "target", "mapping", "flags", "state")}
    # A JSON string is a TOML string, too.
    file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in said.items()))


def paths_of(source: KVSource) -> list[str]:
    """Return paths of the service for some clients, catalogs and gifts of the store."""
    ids: dict[str, list[str]] = {kind: [] for kind in _KINDS}
    for page in source.scan(ScanRequest(wants=nothing, ttl=False)):
        for item in page.items:
            kind, _, ident = item.key.partition(":")
            if kind in ids and len(ids[kind]) < _MOST_IDS and _is_uuid(ident):
                ids[kind].append(ident)
    paths = [f"/clients/{each}" for each in ids["client"]]
    paths += [f"/catalogs/{each}/gifts" for each in ids["catalog_gifts"]]
    return paths + [
        f"/gifts?ids={one},{other}" for one, other in zip(ids["gift"][::2], ids["gift"][1::2], strict=False)
    ]


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
