"""The sources of compiled code: no warning, the house's budgets, and never a module of other sources."""

import shutil
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

from kvmigrate.consistency import compiled
from kvmigrate.transform.lens import emitted
from tools.measure import MAX_FILE_LINES

PACKAGE = Path(__file__).parents[2] / "kvmigrate"
SOURCES = [PACKAGE / "transform" / "lens" / "emit", PACKAGE / "consistency" / "walk"]
WARNINGS = "-Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wpointer-arith -Wvla -Werror".split()


def test_no_warning(tmp_path: Path) -> None:
    """A strict compiler has nothing to say, at the level of optimisation at which it sees most."""
    compiler, include = shutil.which("gcc") or shutil.which("clang"), Path(sysconfig.get_path("include"))
    if compiler is None or not (include / "Python.h").is_file():
        pytest.skip("no C compiler, or no headers of Python")
    for source in sorted(path for folder in SOURCES for path in folder.glob("*.c")):
        made = tmp_path / (source.stem + ".o")
        command = [compiler, "-std=c11", "-O2", *WARNINGS, f"-isystem{include}", "-c", str(source), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)

        assert (0, "") == (done.returncode, done.stderr)


def test_budgets_hold_for_c() -> None:
    """A file of C is no longer than one of Python may be."""
    lengths = {path.name: len(path.read_text().splitlines()) for folder in SOURCES for path in folder.iterdir()}

    assert {"emit.h", "walk.h"} <= lengths.keys()
    assert [] == [name for name, lines in lengths.items() if lines > MAX_FILE_LINES]


@pytest.mark.parametrize("loader", [emitted, compiled])
def test_a_module_of_other_sources_is_not_used(monkeypatch: pytest.MonkeyPatch, loader: ModuleType) -> None:
    """Where the sources were changed and not compiled again, all items take the Python way."""
    if loader.native is None:
        pytest.skip("no compiled code")
    monkeypatch.setattr(loader, "LAYOUT", -1)

    assert loader.find_native() is None
