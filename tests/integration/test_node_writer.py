"""The writer in Node beside writers in Python, on the same keys, while the fence moves."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from kvmigrate.errors import StaleError
from kvmigrate.model import ADDRESS_SEPARATOR, Authority, Fence, Logging, Version
from kvmigrate.stores.fence_base import Swap
from kvmigrate.stores.redis_fence import RedisFencedStore
from kvmigrate.stores.redis_writer import RedisWriter
from tests.fenced_stand import text_item
from tests.need import need

KEYS = [*(f"order:{n}" for n in range(8)), *(f"basket:1{ADDRESS_SEPARATOR}f{n}" for n in range(3))]
WRITES = 400


class Written(NamedTuple):
    """An accepted write: what stood there then, ``None`` for nothing."""

    key: str
    value: str | None
    version: Version


class PythonWriter(threading.Thread):
    """Writes the same keys until it is told to end."""

    def __init__(self, url: str, number: int) -> None:
        """Write at *url*."""
        super().__init__()
        self._url, self._random, self._number = url, random.Random(number), number
        self.written: list[Written] = []
        self.ended = threading.Event()

    def run(self) -> None:
        """Write; where the fence refuses, read it and go on."""
        epoch, turn = 1, 0
        with closing(RedisWriter(self._url, scope="shop")) as writer:
            while not self.ended.is_set():
                key, turn = self._random.choice(KEYS), turn + 1
                value = None if self._random.random() < 0.2 else f"python {self._number} {turn}"
                try:
                    if value is None:
                        put = writer.delete(key, epoch=epoch)
                    else:
                        put = writer.put(text_item(key, value.encode()), epoch=epoch)
                except StaleError as exc:
                    epoch = exc.epoch
                    time.sleep(0.002)
                else:
                    assert put is not None
                    assert put.version is not None
                    self.written.append(Written(key, value, put.version))


def node() -> str:
    """Return the program; without it the test cannot run."""
    found = shutil.which("node")
    return found or need("Node (install node 18 or later)")


def begin(program: str, repository: Path, url: str) -> subprocess.Popen[str]:
    """Start the writer in Node."""
    script = repository / "examples" / "node-writer" / "run.mjs"
    library = repository / "kvmigrate" / "stores" / "kvmigrate.lua"
    return subprocess.Popen(
        [program, str(script), url, "shop", str(library), str(WRITES)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def seal_and_open(store: RedisFencedStore, epoch: int) -> None:
    """Seal the store for a moment, as a flip that is given up does, and open it at a higher epoch."""
    sealed, opened = (Fence(epoch + n, a, Logging.MIRROR) for n, a in ((1, Authority.SEALED), (2, Authority.STORE)))
    assert 1 == store.swap(["kvm"], epochs=[epoch], authorities=[Authority.STORE], to=Swap(sealed))
    time.sleep(0.05)
    assert 1 == store.swap(["kvm"], epochs=[epoch + 1], authorities=[Authority.SEALED], to=Swap(opened, epoch + 2))


def wait_for(threads: list[PythonWriter], epoch: int) -> None:
    """Wait until every thread wrote at an epoch, and a little longer, for Node."""
    end = time.monotonic() + 60
    while not all(any(each.version.epoch == epoch for each in list(thread.written)) for thread in threads):
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(0.1)


@pytest.mark.parametrize("fixture", ["redis_url", "redis6_url", "valkey_url"])
def test_node_and_python_write_the_same_keys(fixture: str, request: pytest.FixtureRequest, repository: Path) -> None:
    """All versions differ; what stands under each key, and its mark, is of its newest accepted write."""
    program, url = node(), request.getfixturevalue(fixture)
    with closing(RedisFencedStore(url, scope="shop")) as store:
        store.create(["kvm"], Fence(1, Authority.STORE, Logging.MIRROR))
        threads = [PythonWriter(url, number) for number in range(2)]
        for thread in threads:
            thread.start()
        process = begin(program, repository, url)
        for epoch in (1, 3):
            wait_for(threads, epoch)
            seal_and_open(store, epoch)
        wait_for(threads, 5)
        out, err = process.communicate(timeout=120)
        for thread in threads:
            thread.ended.set()
            thread.join()

        assert (0, "") == (process.returncode, err)
        ours = [each for thread in threads for each in thread.written]
        theirs = [json.loads(line) for line in out.splitlines()]
        assert WRITES == len(theirs)
        assert {1} == {line["log"] for line in theirs}
        both = ours + [Written(x["key"], x["value"], Version(int(x["epoch"]), x["n"])) for x in theirs]
        check(store, both)


def check(store: RedisFencedStore, written: list[Written]) -> None:
    """Compare the store with all accepted writes."""
    assert len(written) == len({each.version.n for each in written})
    assert sorted(written, key=lambda each: each.version) == sorted(written, key=lambda each: each.version.n)
    assert {1, 3, 5} == {each.version.epoch for each in written}
    newest = {each.key: each for each in sorted(written, key=lambda each: each.version)}
    seen = store.observe("kvm", KEYS)
    assert sorted(KEYS) == sorted(newest)
    assert [newest[key].version.n for key in KEYS] == list(seen.marks)
    values = [None if item is None or not isinstance(item.value, bytes) else item.value.decode() for item in seen.items]
    assert [newest[key].value for key in KEYS] == values
    assert max(each.version for each in written) == seen.version


def test_node_refuses_where_it_must_not_write(redis_url: str, repository: Path) -> None:
    """Without a fence, and once the tables are open: it ends with the error, and nothing is written."""
    program = node()
    with closing(RedisFencedStore(redis_url, scope="shop")) as store:
        for fence, error in ((None, "NoFenceError"), (Fence(2, Authority.TABLES), "TablesOpenError")):
            if fence is not None:
                store.create(["kvm"], fence)
            process = begin(program, repository, redis_url)
            out, err = process.communicate(timeout=60)

            assert (1, "") == (process.returncode, out)
            assert error in err
            assert 0 == store.marks()
