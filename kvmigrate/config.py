"""Settings: from options, the environment and ``kvmigrate.toml``, in this order. Nothing else reads these.

=============  ===========================  ==================  =================================
option         environment                  ``kvmigrate.toml``  default
=============  ===========================  ==================  =================================
source         ``KVMIGRATE_SOURCE``         ``source``          none
target         ``KVMIGRATE_TARGET``         ``target``          none
mapping        ``KVMIGRATE_MAPPING``        ``mapping``         ``mapping.yaml``, where it exists
wait-replicas  ``KVMIGRATE_WAIT_REPLICAS``  ``wait_replicas``   0
flags          ``KVMIGRATE_FLAGS``          ``flags``           ``flags.yaml``, where it exists
state          ``KVMIGRATE_STATE``          ``state``           none
read-target    ``KVMIGRATE_READ_TARGET``    ``read_target``     none
=============  ===========================  ==================  =================================

``max_divergence_pct`` and ``min_samples`` (``--max-divergence``, ``--min-samples``), too: what a gate asks of the last
measurement of divergence; by default nothing, but that no divergence was found.
"""

from __future__ import annotations

import difflib
import getpass
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kvmigrate.errors import ConfigError

CONFIG_FILE = "kvmigrate.toml"
"""Read from the current folder when no other file is named."""

MAPPING_FILE = "mapping.yaml"
"""The mapping, when nothing names another."""

FLAGS_FILE = "flags.yaml"
"""The flags, when nothing names others."""

_WAIT_REPLICAS = "wait_replicas"
_MAX_DIVERGENCE, _MIN_SAMPLES = "max_divergence_pct", "min_samples"
_KEEP_DAYS, _ZERO = "evidence_keep_days", "zero_tolerance"
_SLOWDOWN, _BACKUP, _ERRORS = "max_slowdown", "max_backup_age_h", "max_errors_pct"
_KEYS = (
    "source",
    "target",
    "mapping",
    _WAIT_REPLICAS,
    _MAX_DIVERGENCE,
    _MIN_SAMPLES,
    _KEEP_DAYS,
    _ZERO,
    _SLOWDOWN,
    _BACKUP,
    _ERRORS,
    "flags",
    "state",
    "read_target",
)
_OPTIONS = {_MAX_DIVERGENCE: "--max-divergence"}
_VARIABLES = {key: f"KVMIGRATE_{key.upper()}" for key in _KEYS}
_SHOWN_OPTIONS = re.compile(r"(?:^|&)((?:table|key_column|value_column|expires_column|sslmode)=[^&]*)")


@dataclass(frozen=True, slots=True)
class Settings:
    """What to migrate, from where, to where. Its repr holds no secret.

    Attributes:
        source: URL of the store, or "".

        target: URL of the PostgreSQL database, or "".

        mapping: The mapping file, or ``None``.

        came_from: For each setting that has a value, where that came from, in words.

        config: The file of settings, where one was named.

        wait_replicas: So many replicas of the store must have what decides who may write, before it counts.

        flags: Who says how much of which endpoint shall read the tables: a file, the URL of a flag server, or "" for
            the row in the target.

        state: A folder of this machine for what the next start should know, or ``None``.

        read_target: URL of a standby of the target, for reads of endpoints that may be a little late; or "".

        max_divergence_pct: A gate lets at most that share of keys diverge, in per cent, and wants a measurement.

        min_samples: A gate wants so many keys compared.

        zero_tolerance: Entities of which a gate lets no single item diverge.

        max_slowdown: A gate lets the tables take so many times as long as the store, for 95 % of all requests.

        max_backup_age_h: A gate wants a verified backup that is at most so many hours old.

        max_errors_pct: A gate lets the tables fail that share of the requests that the store answers, in per cent.

        evidence_keep_days: What measurements and repairs found is kept for so many days.
    """

    source: str = field(default="", repr=False)
    target: str = field(default="", repr=False)
    mapping: Path | None = None
    came_from: Mapping[str, str] = field(default_factory=dict)
    config: Path | None = None
    wait_replicas: int = 0
    flags: str = field(default="", repr=False)
    state: Path | None = None
    max_divergence_pct: float | None = None
    min_samples: int = 0
    evidence_keep_days: int = 30
    zero_tolerance: tuple[str, ...] = ()
    read_target: str = field(default="", repr=False)
    max_slowdown: float | None = None
    max_backup_age_h: float | None = None
    max_errors_pct: float | None = None

    def __repr__(self) -> str:
        shown = f"source={mask_url(self.source)!r}, target={mask_url(self.target)!r}"
        return f"Settings({shown}, mapping={str(self.mapping or '')!r}, came_from={dict(self.came_from)!r})"

    def need_source(self) -> str:
        """Return the URL of the store. Raises `ConfigError` where none is named."""
        return self.source or _missing("source", "which store to read", "redis://localhost:6379/0")

    def need_target(self) -> str:
        """Return the URL of the target. Raises `ConfigError` where none is named."""
        return self.target or _missing("target", "which database to fill", "postgresql://localhost/shop")

    def need_mapping(self) -> Path:
        """Return the mapping file. Raises `ConfigError` where none is named."""
        return self.mapping or Path(_missing("mapping", "what becomes which table", MAPPING_FILE))


def read_settings(
    options: Mapping[str, str | Path | float | None] | None = None,
    *,
    config: Path | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Settings:
    """Return the settings, each from the first place that has it.

    Args:
        options: What the command line gave, by setting, such as source, target, mapping.

        config: A file in place of ``kvmigrate.toml`` of the current folder; it must exist.

        environment: In place of the process's.

        folder: In place of the current folder.

    Raises:
        ConfigError: the file cannot be read, or has a key or value that is not one.
    """
    given = {name: str(value) for name, value in (options or {}).items() if value not in {None, ""}}
    variables = os.environ if environment is None else environment
    folder = folder or Path()
    file = config or folder / CONFIG_FILE
    written = _read_file(file, must_exist=config is not None)
    values: dict[str, str] = {}
    came_from: dict[str, str] = {}
    for name in _KEYS:
        places = [
            (given.get(name), _OPTIONS.get(name, f"--{name.replace('_', '-')}")),
            (variables.get(_VARIABLES[name]), _VARIABLES[name]),
        ]
        for value, place in [*places, (written.get(name), str(file))]:
            if value:
                values[name], came_from[name] = value, place
                break
    if "mapping" not in values and (folder / MAPPING_FILE).is_file():
        values["mapping"], came_from["mapping"] = str(folder / MAPPING_FILE), "the current folder"
    if "flags" not in values and (folder / FLAGS_FILE).is_file():
        values["flags"], came_from["flags"] = str(folder / FLAGS_FILE), "the current folder"
    mapping = Path(values["mapping"]) if "mapping" in values else None
    state = Path(values["state"]) if "state" in values else None
    replicas, samples, days = (
        _number(values.get(name, default), came_from.get(name, ""), name)
        for name, default in ((_WAIT_REPLICAS, "0"), (_MIN_SAMPLES, "0"), (_KEEP_DAYS, "30"))
    )
    divergence = _percent(values.get(_MAX_DIVERGENCE), came_from.get(_MAX_DIVERGENCE, ""))
    slowdown, backup_age, errors = (
        _positive(values.get(name), came_from.get(name, ""), name) for name in (_SLOWDOWN, _BACKUP, _ERRORS)
    )
    sides = values.get("source", ""), values.get("target", "")
    return Settings(
        *sides,
        mapping,
        came_from,
        config,
        replicas,
        flags=values.get("flags", ""),
        state=state,
        max_divergence_pct=divergence,
        min_samples=samples,
        evidence_keep_days=days,
        zero_tolerance=tuple(name.strip() for name in values.get(_ZERO, "").split(",") if name.strip()),
        read_target=values.get("read_target", ""),
        max_slowdown=slowdown,
        max_backup_age_h=backup_age,
        max_errors_pct=errors,
    )


def is_ci() -> bool:
    """Return whether this is a build machine: ``CI`` is set. Its logs get lines and no bars."""
    return bool(os.environ.get("CI"))


def mask_url(url: str) -> str:
    """Return *url* without user, password and unknown options, or ``***`` for what is no URL."""
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        # A host that was forgotten leaves the password in the place of the port.
        _ = [urlsplit(f"//{host}").port for host in parts.netloc.rpartition("@")[2].split(",")]
    except ValueError:
        return "***"
    # Behind a '#' or a second '@' stands the rest of a password that was not percent-encoded.
    if not parts.scheme or "://" not in url or parts.fragment or "@" in parts.path + parts.query:
        return "***"
    shown = "&".join(_SHOWN_OPTIONS.findall(parts.query))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{'?' if shown else ''}{shown}"


def _number(text: str, place: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        what = {_WAIT_REPLICAS: "replicas", _MIN_SAMPLES: "samples", _KEEP_DAYS: "days"}[name]
        raise ConfigError(f"{place}: {text!r} is no number of {what}", hint=f"{name} = 1")
    return int(text)


def _percent(text: str | None, place: str) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 100:
        raise ConfigError(f"{place}: {text!r} is no share of keys", hint=f"in per cent: {_MAX_DIVERGENCE} = 0.1")
    return value


def _positive(text: str | None, place: str, name: str) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigError(f"{place}: {text!r} is no number above 0", hint=f"{name} = 2")
    return value


def _missing(name: str, what: str, example: str) -> str:
    """Raise: there is no such setting."""
    raise ConfigError(
        f"no {name}: nothing says {what}",
        hint=f'give --{name} {example}, set {_VARIABLES[name]}, or write {name} = "..." into {CONFIG_FILE}',
    )


def _read_file(file: Path, *, must_exist: bool) -> dict[str, str]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        if must_exist:
            raise ConfigError(f"there is no file {str(file)!r}", hint="check --config") from None
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"cannot read {str(file)!r}: {exc}", hint="check --config") from exc
    try:
        members = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        # The text of the error names line and column, and never a value.
        raise ConfigError(f"{file}: not TOML: {exc}", hint='a line looks like source = "redis://..."') from exc
    values = {name: _checked(file, name, value) for name, value in members.items()}
    for name in ("mapping", "flags", "state"):
        if name in values and "://" not in values[name]:
            # Relative to the file, so that it means the same wherever the command is typed.
            values[name] = str(file.parent / values[name])
    return values


def _checked(file: Path, name: str, value: Any) -> str:
    if name not in _KEYS:
        near = difflib.get_close_matches(name, _KEYS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(_KEYS)}"
        raise ConfigError(f"{file}: unknown key {name!r}", hint=hint)
    if (
        name in {_MAX_DIVERGENCE, _SLOWDOWN, _BACKUP, _ERRORS}
        and isinstance(value, int | float)
        and not isinstance(value, bool)
    ):
        return str(value)
    if name in {_WAIT_REPLICAS, _MIN_SAMPLES, _KEEP_DAYS}:
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ConfigError(f"{file}: {name} must be a number from 0", hint=f"{name} = 1")
        return str(value)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{file}: {name} must be a text", hint=f'{name} = "..."')
    return value


def who_asks() -> str:
    """Return the name of the user, for the change log."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
