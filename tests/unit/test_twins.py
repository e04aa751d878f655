"""The generated twins are what the authored modules make them, and really differ by async alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tools import async_to_sync


def test_the_twins_are_current(repository: Path) -> None:
    """`tools/async_to_sync.py --check` finds nothing to write, and no rule that nothing needs."""
    done = subprocess.run(
        [sys.executable, repository / "tools" / "async_to_sync.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert "" == done.stdout + done.stderr
    assert 0 == done.returncode


def test_every_authored_module_has_a_twin(repository: Path) -> None:
    """None is forgotten in the table."""
    authored = {path.relative_to(repository).as_posix() for path in (repository / "kvmigrate").rglob("*_async.py")}

    assert sorted(authored) == sorted(async_to_sync.TWINS + async_to_sync.BY_HAND)


@pytest.mark.parametrize("name", async_to_sync.TWINS)
def test_nothing_async_is_left_in_a_twin(repository: Path, name: str) -> None:
    """A word that the table does not know would run, and not wait."""
    text = async_to_sync.twin_of(repository / name).read_text(encoding="utf-8")
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]

    assert [] == found
    assert "asyncio" not in text
    assert "Async" not in text
