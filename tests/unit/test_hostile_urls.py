"""URLs with a password in the wrong place: whatever goes wrong, no text repeats the password."""

from __future__ import annotations

import traceback

import pytest

from kvmigrate.config import mask_url
from kvmigrate.errors import KVMigrateError
from kvmigrate.stores.open import open_source
from kvmigrate.target.address import connect, target_settings
from kvmigrate.target.schema_postgres import is_supabase
from tests.fix_cli import CommandLine

PW = "hunter2"

TARGETS = [
    f"postgresql://u:{PW} x@127.0.0.1:1/db",
    f"postgresql://u:{PW}%zz@127.0.0.1:1/db",
    f"postgresql://u:{PW}%00@127.0.0.1:1/db",
    f"POSTGRESQL://u:{PW}@127.0.0.1:1/db",
    f"Postgres://u:{PW}@127.0.0.1:1/db?{PW}",
    f"mysql://u:{PW}@127.0.0.1/db",
    f"{PW}://u@127.0.0.1/db",
    PW,
    f"host=127.0.0.1 port=1 user=u password={PW}",
    f"u:{PW}@127.0.0.1/db",
    f"postgresql:/u:{PW}@127.0.0.1/db",
    f"postgresql://u:x@{PW}@127.0.0.1:1/db",
    f"postgresql://u:{PW}#/x@127.0.0.1:1/db",
    f"postgresql://u:{PW}/x@127.0.0.1:1/db",
    f"postgresql://u:1/{PW}@127.0.0.1:1/db",
    f"postgresql://u:{PW}[@127.0.0.1:1/db",
    f"postgresql://u:{PW}?x@127.0.0.1:1/db",
    f"postgresql://u:{PW}",
    f"postgresql://u@[{PW}/db",
    f"postgresql://u@127.0.0.1:{PW}/db",
    f"postgresql://u@127.0.0.1:1,h:{PW}/db",
    f"postgresql://u:{PW}@127.0.0.1:99999/db",
    f"postgresql://127.0.0.1:1/db?user=u&password={PW}",
    f"postgresql://127.0.0.1:1/db?user=u&password=x&{PW}",
    f"postgresql://127.0.0.1:1/db?user=u&password=x&{PW}=1",
    f"postgresql://u@127.0.0.1:1/db?connect_timeout={PW}",
    f"postgresql://u@127.0.0.1:1/db?sslmode={PW}",
    f"postgresql://u@127.0.0.1:1/db?target_session_attrs={PW}",
    f"postgresql://u@127.0.0.1:1/db?gssencmode={PW}",
    f"postgresql://u@127.0.0.1:1/db?keepalives={PW}",
    f"postgresql://u:{PW}\udcff@127.0.0.1:1/db",
]

SOURCES = [
    f"redis://:{PW}?x@127.0.0.1:1",
    f"redis://:{PW}?x=1@127.0.0.1:1/0",
    f"redis://u:{PW}",
    f"redis://:{PW}",
    f"redis://u:{PW}/0",
    f"REDIS://u:{PW}@127.0.0.1:abc/0",
    f"redis://u@127.0.0.1:{PW}/0",
    f"redis://:{PW}@127.0.0.1:1/{PW}",
    f"redis://127.0.0.1:1/0?password=x&{PW}",
    f"redis://127.0.0.1:1/0?password=x&{PW}=1",
    f"redis://:{PW}[@127.0.0.1:1/0",
    f"redis://:{PW}%zz@127.0.0.1:1/0",
    f"redis://{PW}@127.0.0.1:1/0",
    f"unix://:{PW}?x@/no.sock",
    f"postgresql://u:{PW}?x@127.0.0.1:1/db?table=t",
    f"postgresql://u:{PW}%zz@127.0.0.1:1/db?table=t",
    f"postgresql://u:{PW} x@127.0.0.1:1/db?table=t",
    f"postgresql://u:{PW}",
    f"postgresql://u@127.0.0.1:1,h:{PW}/db?table=t",
    f"postgresql://127.0.0.1:1/db?table=t&user=u&password=x&{PW}=1",
    f"supabase://u:{PW}/db?table=t",
    f"redis+sentinel://:{PW}@h1,h2:{PW}/0",
]


def everything_said(error: BaseException) -> str:
    """Return what a user could see of *error*, with the traceback of ``--debug``."""
    return f"{error} {error!r} {getattr(error, 'hint', '')} {''.join(traceback.format_exception(error))}"


@pytest.mark.parametrize("url", TARGETS)
def test_an_unusable_target_is_told_without_its_password(url: str) -> None:
    """Neither message nor hint nor traceback repeats what libpq would have quoted."""
    with pytest.raises(KVMigrateError) as caught:
        is_supabase(url)

    said = everything_said(caught.value)
    assert PW not in said.replace(repr(url), "").replace(url, ""), said
    assert PW not in said


@pytest.mark.parametrize("url", SOURCES)
def test_an_unusable_source_is_told_without_its_password(url: str) -> None:
    """Whether the URL is refused or the server is not there."""
    with pytest.raises(KVMigrateError) as caught:
        open_source(url).count()

    assert PW not in everything_said(caught.value)


@pytest.mark.parametrize("url", [*TARGETS, *SOURCES])
def test_a_masked_url_never_has_a_password_for_a_port(url: str) -> None:
    """What stands behind a host is shown only where it is a number."""
    assert f":{PW}" not in mask_url(url)


@pytest.mark.parametrize("url", [each for each in TARGETS if "127.0.0.1:1/db" not in each or " " in each])
def test_the_program_says_nothing_of_a_password(bare_cli: CommandLine, url: str) -> None:
    """Both as JSON with the traceback, and in words."""
    for arguments in (["--debug", "schema", "--diff", "--json"], ["backfill", "--source", "redis://127.0.0.1:1/0"]):
        done = bare_cli(*arguments, "--target", url)

        assert done.code in {1, 2}
        assert PW not in done.out + done.err


def test_a_scheme_may_be_written_in_capitals() -> None:
    """As a URL's scheme may be everywhere else."""
    assert {"host": "db", "user": "u", "dbname": "shop"} == target_settings(" POSTGRESQL://u@db/shop\n")
    with pytest.raises(KVMigrateError, match="no PostgreSQL URL") as caught:
        connect("mysql://u@db/shop")
    assert "postgresql://" in caught.value.hint
