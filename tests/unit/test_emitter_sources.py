"""The sources of the compiled emitter: no warning, the house's budgets, and never a module of other sources."""

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from kvmigrate.transform.lens import emitted
from tools.measure import MAX_FILE_LINES

SOURCES = Path(__file__).parents[2] / "kvmigrate" / "transform" / "lens" / "emit"
WARNINGS = "-Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wpointer-arith -Wvla -Werror".split()


def test_no_warning(tmp_path: Path) -> None:
    """A strict compiler has nothing to say, at the level of optimisation at which it sees most."""
    compiler, include = shutil.which("gcc") or shutil.which("clang"), Path(sysconfig.get_path("include"))
    if compiler is None or not (include / "Python.h").is_file():
        pytest.skip("no C compiler, or no headers of Python")
    for source in sorted(SOURCES.glob("*.c")):
        made = tmp_path / (source.stem + ".o")
        command = [compiler, "-std=c11", "-O2", *WARNINGS, f"-isystem{include}", "-c", str(source), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)

        assert (0, "") == (done.returncode, done.stderr)


def test_budgets_hold_for_c() -> None:
    """A file of C is no longer than one of Python may be."""
    lengths = {path.name: len(path.read_text().splitlines()) for path in SOURCES.iterdir()}

    assert "emit.h" in lengths
    assert [] == [name for name, lines in lengths.items() if lines > MAX_FILE_LINES]


def test_a_module_of_other_sources_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the sources were changed and not compiled again, all items take the Python way."""
    if emitted.native is None:
        pytest.skip("no compiled emitter")
    monkeypatch.setattr(emitted, "LAYOUT", -1)

    assert emitted.find_native() is None
