from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kvmigrate.errors import ConfigError
from kvmigrate.stores.open import open_source
from kvmigrate.stores.position import AT_FIRST_KEY, behind, last_key, number
from kvmigrate.stores.url import parse_source_url

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://cache:6379/0", "redis://cache:6379/0"),
        ("redis://:hunter2@cache/0", "redis://cache/0"),
        ("redis://app:hunter2@cache/0", "redis://app@cache/0"),
        ("redis://hunter2@cache/0", "redis://cache/0"),
        ("rediss://cache/0?password=hunter2&protocol=3", "rediss://cache/0?protocol=3"),
        ("unix://:hunter2@/run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
        ("postgresql://u:hunter2@h1:1,h2:2/db?table=kv", "postgresql://u@h1:1,h2:2/db?table=kv"),
        ("postgres://u:a@b:hunter2@h/db", "postgres://u@h/db"),
        ("supabase://postgres.ref:hunter2@h/db?table=t", "supabase://postgres.ref@h/db?table=t"),
        ("postgresql://h/db?password=hunter2&sslpassword=hunter2&user=u&table=kv", "postgresql://h/db?table=kv"),
        ("postgresql://h/db?options=-c%20hunter2", "postgresql://h/db"),
        ("sqlite:///f.db?table=a%20b", "sqlite:///f.db?table=a%20b"),
        ("file:///x.ndjson?key=customers:{_id.$oid}", "file:///x.ndjson?key=customers:{_id.$oid}"),
        ("  REDIS://cache/0\n", "redis://cache/0"),
    ],
)
def test_a_name_has_no_secret(url: str, name: str) -> None:
    """Passwords, and options that may hold one, are not in the name, nor in the repr."""
    parsed = parse_source_url(url)

    assert name == parsed.name
    assert SECRET not in parsed.name
    assert SECRET not in repr(parsed)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://:hun%2Fter2@cache/0", "AUTH hun/ter2 failed, hun%2Fter2 too"),
        ("postgresql://h/db?password=hun/ter2", "password hun/ter2"),
        ("redis://hunter2@cache/0", "no user hunter2"),
        ("redis://:hun@cache/0?password=hunter2", "hunter2 or hun"),
    ],
)
def test_scrubbing_takes_out_every_form_of_a_secret(url: str, text: str) -> None:
    """Drivers quote what they were given, encoded or decoded."""
    scrubbed = parse_source_url(url).scrub(text)

    assert "hun" not in scrubbed
    assert "***" in scrubbed


def test_scrubbing_takes_out_what_a_driver_tells_of_its_clients() -> None:
    """Without a master the driver's words are a page of settings, and the first line says it all."""
    told = "No master found for 'shop' : <redis.client.Redis(<redis.connection.ConnectionPool(...)>)> - timeout"

    assert "No master found for 'shop'" == parse_source_url("redis+sentinel://h1,h2/shop").scrub(told)


@pytest.mark.parametrize(
    "url",
    [
        "hunter2",
        "",
        "mysql://u:hunter2@h/db",
        "redis:/hunter2",
        "redis://:hun/ter2@cache/hunter2",
        "redis://:hunter2#x@cache/0",
        "postgresql://u:hunter2/x@h/db",
        "redis://:hunter2@cache/zero",
        "redis://:hunter2@cache/-1",
        "redis://:hunter2@cache:port/0",
        "redis://cache/0?db=zero",
        "redis://:hunter2@cache/0?decode_responses=yes",
        "redis://cache/0?socket_timeout=hunter2",
        "redis+sentinel://:hunter2@h1,h2/",
        "redis+cluster://:hunter2@h1:6379/3",
        "postgresql://u:hunter2@h/db?tabel=kv",
        "postgresql://u:hunter2%zz@h/db?table=kv",
        "supabase://u:hunter2@https://ref.supabase.co",
        "supabase://ref.supabase.co?table=kv",
        "sqlite:///no/such/file.db?table=t",
        "sqlite:///etc/hostname?table=t&password=hunter2",
        "file:///no/such/file.ndjson",
    ],
)
def test_a_wrong_url_is_told_with_a_hint_and_without_the_secret(url: str) -> None:
    """Whoever mistypes a URL learns what is wrong; logs learn no password."""
    with pytest.raises(ConfigError) as caught:
        open_source(url)

    assert caught.value.hint
    shown: BaseException | None = caught.value
    while shown is not None:
        assert SECRET not in f"{shown} {shown!r} {getattr(shown, 'hint', '')}"
        shown = shown.__cause__


def test_a_file_may_be_named_from_the_root_or_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sqlite:///shop.db means both in different tools; the file that exists is taken, the root's first."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "my shop.db"
    file.touch()

    assert file == parse_source_url(f"sqlite://{tmp_path}/my%20shop.db").file()
    assert file.samefile(parse_source_url("sqlite:///my%20shop.db").file())
    assert file.samefile(parse_source_url("file://./my shop.db").file())
    with pytest.raises(ConfigError) as caught:
        parse_source_url("sqlite:///other.db").file()
    assert "/other.db and other.db" in caught.value.hint


def test_a_plus_in_an_option_stays_one() -> None:
    """Options are no form data: a key or a table may hold a plus."""
    assert {"table": "a+b", "key": "a b&c"} == parse_source_url("file:///x?table=a+b&key=a%20b%26c").options


def test_the_driver_gets_its_own_options_and_secrets_only() -> None:
    """What names the table is ours; the rest is handed on."""
    url = parse_source_url("supabase://u:p%40@h:5432/db?table=kv&sslmode=require&options=-c%20x%3D1")

    assert "postgresql://u:p%40@h:5432/db?sslmode=require&options=-c%20x%3D1" == url.driver_url(
        "postgresql", without=("table",)
    )


@pytest.mark.parametrize("key", [b"", b"a", b">", b"!", "é\u241f".encode(), b"\xff\xfe", b"a\nb"])
def test_a_position_gives_the_key_back(key: bytes) -> None:
    """Also the empty key, and keys that are not UTF-8; none is taken for the start."""
    position = behind(key)

    assert key == last_key(position)
    assert position not in {"", AT_FIRST_KEY}


def test_a_position_of_another_kind_of_source_is_an_error() -> None:
    """A checkpoint of a Redis does not silently become a place in a table, nor the other way round."""
    assert last_key("") is None
    assert last_key(AT_FIRST_KEY) is None
    assert 42 == number("42")
    with pytest.raises(Exception, match="no position"):
        last_key("42")
    with pytest.raises(Exception, match="no position"):
        number(behind(b"a"))


def test_only_the_driver_of_the_url_is_loaded(tmp_path: Path) -> None:
    """Who reads a file needs neither the driver of Redis nor that of PostgreSQL."""
    file = tmp_path / "x.ndjson"
    file.touch()
    program = (
        "import sys; from kvmigrate.stores.open import open_source;"
        f" open_source('file://{file}').close();"
        " print(sorted({'redis', 'psycopg', 'sqlite3'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert "[]" == done.stdout.strip()
