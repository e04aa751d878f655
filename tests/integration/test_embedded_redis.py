import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from kvmigrate.embedded.binaries import find_redis
from kvmigrate.embedded.process import free_port
from kvmigrate.embedded.redis import URL_VARIABLES, RedisServer
from kvmigrate.errors import ServerError
from tests.need import need


@pytest.fixture
def _redis_program() -> None:
    if find_redis() is None:
        need("Redis (a program to start)")


@pytest.mark.parametrize("round_", [1, 2])
def test_each_test_starts_empty(redis_client: redis.Redis, round_: int) -> None:
    """What another test wrote is gone."""
    assert 0 == redis_client.dbsize()
    redis_client.set("left", str(round_))


@pytest.mark.usefixtures("_redis_program")
def test_a_closed_server_is_gone() -> None:
    """Closing stops the server and may be repeated."""
    server = RedisServer.start()
    assert server.version.count(".") >= 1

    server.close()
    server.close()

    with pytest.raises(redis.ConnectionError), redis.Redis.from_url(server.url) as client:
        client.ping()


@pytest.mark.usefixtures("_redis_program")
def test_nobody_enters_without_the_password() -> None:
    """Other users of this machine can reach the port, so the port asks for a password."""
    with (
        RedisServer.start() as server,
        redis.Redis(port=urlsplit(server.url).port or 0) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


@pytest.mark.usefixtures("_redis_program")
def test_a_kept_folder_has_its_data_again(tmp_path: Path) -> None:
    """Started twice in one folder, also one with a space, a server has the same keys."""
    folder = tmp_path / "a folder"
    with RedisServer.start(folder) as server, redis.Redis.from_url(server.url) as client:
        client.set("answer", "42")

    with RedisServer.start(folder) as server, redis.Redis.from_url(server.url) as client:
        assert b"42" == client.get("answer")


@pytest.mark.usefixtures("_redis_program")
def test_a_setting_that_redis_refuses_is_told() -> None:
    """The error carries what the server said."""
    with pytest.raises(ServerError, match="no-such-setting") as caught:
        RedisServer.start(settings={"no-such-setting": "1"})

    assert caught.value.hint


@pytest.mark.usefixtures("_redis_program")
def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A file where the folder should be is a server error with a hint, not a traceback of the system."""
    (tmp_path / "file").touch()

    with pytest.raises(ServerError, match="file") as caught:
        RedisServer.start(tmp_path / "file" / "server")

    assert caught.value.hint


def test_a_port_taken_meanwhile_is_replaced(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """When another program takes the chosen port first, the server starts on the next one."""
    taken = urlsplit(redis_server.url).port
    ports = iter([taken])
    monkeypatch.setattr("kvmigrate.embedded.redis.free_port", lambda: next(ports, None) or free_port())

    with RedisServer.start() as server:
        assert taken != urlsplit(server.url).port


def test_the_environment_names_a_running_server(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A named server is used as it is, and closing leaves it running."""
    for variable in URL_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(URL_VARIABLES[0], redis_server.url)

    found = RedisServer.find()

    assert found is not None
    assert (redis_server.url, False) == (found.url, found.owned)
    found.close()
    assert redis_server.version == found.version


def test_without_a_program_there_is_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller is told, and may go on without Redis."""
    for variable in URL_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("kvmigrate.embedded.redis.find_redis", lambda: None)

    assert RedisServer.find() is None
    with pytest.raises(ServerError, match="no Redis"):
        RedisServer.start()


@pytest.mark.usefixtures("_redis_program")
def test_a_killed_program_leaves_no_server() -> None:
    """SIGKILL runs no exit handler; the server ends all the same."""
    script = (
        "import os, signal\n"
        "from kvmigrate.embedded.redis import RedisServer\n"
        "print(RedisServer.start().url, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert -signal.SIGKILL == done.returncode
    assert _is_gone(done.stdout.strip())


def _is_gone(url: str) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            with redis.Redis.from_url(url) as client:
                client.ping()
        except redis.RedisError:
            return True
        time.sleep(0.05)
    return False
