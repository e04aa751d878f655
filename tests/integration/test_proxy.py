"""The misbehaving network misbehaves exactly as told, before both kinds of servers."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.fix_postgres import PgConnection
from tests.proxy import Proxy, Way

RedisClient = redis.Redis


@pytest.fixture
def client(redis_proxy: Proxy, redis_url: str) -> Iterator[RedisClient]:
    """A client behind the proxy that tries nothing twice."""
    url = redis_proxy.url(redis_url)
    with redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=2) as made:
        yield made


def wait_until_none(proxy: Proxy) -> None:
    """Wait until the proxy has no connection any more."""
    end = time.monotonic() + 10
    while proxy.connections and time.monotonic() < end:
        time.sleep(0.01)
    assert 0 == proxy.connections


def test_it_forwards(client: RedisClient, redis_proxy: Proxy, postgres_proxy: Proxy, database: str) -> None:
    """Large answers come whole, and an orderly end on one side is one on the other."""
    value = bytes(range(256)) * 8192
    client.set("large", value)
    assert value == client.get("large")
    client.close()
    wait_until_none(redis_proxy)

    with psycopg.connect(postgres_proxy.url(database)) as connection:
        assert [("x" * 1_000_000,)] == connection.execute("SELECT repeat('x', 1000000)").fetchall()
    wait_until_none(postgres_proxy)


def test_a_delay_is_at_least_what_was_told(client: RedisClient, redis_proxy: Proxy) -> None:
    """There and back, each way is late by it."""
    client.ping()
    redis_proxy.delay(0.05, jitter_s=0.01)

    began = time.monotonic()
    client.ping()

    assert time.monotonic() - began >= 0.1
    redis_proxy.heal()
    client.ping()


def test_dropped_connections_are_gone_and_new_ones_come(postgres_proxy: Proxy, database: str) -> None:
    """An open connection is reset; the next one works."""
    url = postgres_proxy.url(database)
    with psycopg.connect(url) as connection:
        assert 1 == postgres_proxy.drop()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")

    with psycopg.connect(url) as connection:
        assert [(1,)] == connection.execute("SELECT 1").fetchall()


def test_refused_connections(client: RedisClient, redis_proxy: Proxy) -> None:
    """A server that is not there, until it is."""
    redis_proxy.refuse()
    with pytest.raises(redis.ConnectionError):
        client.ping()

    redis_proxy.heal()
    assert client.ping()


def test_a_black_hole_takes_everything(client: RedisClient, redis_proxy: Proxy, redis_client: RedisClient) -> None:
    """No answer comes, and what was asked is never done."""
    client.ping()
    redis_proxy.black_hole()
    with pytest.raises(redis.TimeoutError):
        client.set("swallowed", "1")

    redis_proxy.heal()
    assert client.ping()
    assert not redis_client.exists("swallowed")


def test_a_pause_keeps_what_arrives(client: RedisClient, redis_proxy: Proxy, redis_client: RedisClient) -> None:
    """What was sent meanwhile is done after it."""
    client.ping()
    done = threading.Event()

    def write() -> None:
        client.set("later", "1")
        done.set()

    with redis_proxy.paused():
        thread = threading.Thread(target=write)
        thread.start()
        assert not done.wait(0.1)
        assert not redis_client.exists("later")
    thread.join(10)

    assert b"1" == redis_client.get("later")


def test_an_answer_that_is_lost(client: RedisClient, redis_proxy: Proxy, redis_client: RedisClient) -> None:
    """The server did it, and the client cannot know."""
    client.ping()
    cut = redis_proxy.cut_reply(b"unanswered")
    with pytest.raises(redis.ConnectionError):
        client.set("unanswered", "1")

    assert cut.happened.is_set()
    assert b"1" == redis_client.get("unanswered")
    assert client.set("unanswered", "2"), "once is enough"


def test_a_request_that_is_lost(client: RedisClient, redis_proxy: Proxy, redis_client: RedisClient) -> None:
    """The server never heard of it; to the client it looks like a lost answer."""
    client.ping()
    cut = redis_proxy.cut_request(b"unheard")
    with pytest.raises(redis.ConnectionError):
        client.set("unheard", "1")

    assert cut.happened.is_set()
    assert not redis_client.exists("unheard")
    assert client.set("unheard", "2")


def test_a_cut_after_so_many_bytes(redis_proxy: Proxy, redis_client: RedisClient) -> None:
    """Exactly that many arrive."""
    assert redis_client.ping()
    cut = redis_proxy.cut(Way.REPLY, after=4)
    received = b""
    with socket.create_connection(("127.0.0.1", redis_proxy.port)) as connection:
        connection.settimeout(5)
        connection.sendall(b"PING\r\n")
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(100):
                received += data

    assert cut.happened.is_set()
    assert 4 == len(received)


def test_a_zombie_write_comes_late(client: RedisClient, redis_proxy: Proxy, redis_client: RedisClient) -> None:
    """Its sender has given up and written again; then the first one arrives, too."""
    client.ping()
    held = redis_proxy.hold(b"first")
    with pytest.raises(redis.ConnectionError):
        client.set("key", "first")
    assert held.arrived.wait(5)
    client.set("key", "second")
    assert b"second" == redis_client.get("key")

    held.deliver()

    assert b"first" == redis_client.get("key")
    client.close()
    wait_until_none(redis_proxy)


def test_a_late_write_of_a_patient_client(client: RedisClient, redis_proxy: Proxy) -> None:
    """Held without hanging up: the answer comes once it is delivered."""
    client.ping()
    held = redis_proxy.hold(b"patient", hang_up=False)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(client.set("key", "patient")))
    thread.start()
    assert held.arrived.wait(5)
    assert [] == answers

    held.deliver()
    thread.join(10)

    assert [True] == answers
    assert client.ping()
    client.close()
    wait_until_none(redis_proxy)


def test_a_request_is_replayed(client: RedisClient, redis_proxy: Proxy, redis_url: str) -> None:
    """What was caught once can be sent again, on a connection of its own."""
    client.ping()
    held = redis_proxy.hold(b"INCR")
    with pytest.raises(redis.ConnectionError):
        client.incr("count")
    held.deliver()
    password = redis_url.partition("://:")[2].partition("@")[0]
    login = f"AUTH {password}\r\n".encode() if password else b""

    assert b":2\r\n" == redis_proxy.replay(held.data, first=login)


def test_a_zombie_of_postgres(postgres_proxy: Proxy, database: str, pg: PgConnection) -> None:
    """The server executes a statement whose client is gone, and commits it, each time that it comes."""
    pg.execute("CREATE TABLE written (what text)")
    with psycopg.connect(postgres_proxy.url(database), autocommit=True, sslmode="disable") as connection:
        held = postgres_proxy.hold(b"INSERT INTO written")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("INSERT INTO written VALUES ('late')")
    assert [] == pg.execute("SELECT what FROM written").fetchall()

    held.deliver(copies=2)

    assert [("late",)] * 2 == pg.execute("SELECT what FROM written").fetchall()


def test_an_answer_of_postgres_that_is_lost(postgres_proxy: Proxy, database: str, pg: PgConnection) -> None:
    """The commit happened; its client was told of a lost connection."""
    pg.execute("CREATE TABLE written (what text)")
    with psycopg.connect(postgres_proxy.url(database), sslmode="disable") as connection:
        connection.execute("INSERT INTO written VALUES ('surely')")
        postgres_proxy.cut_reply(b"COMMIT")
        with pytest.raises(psycopg.OperationalError):
            connection.commit()

    assert [("surely",)] == pg.execute("SELECT what FROM written").fetchall()
