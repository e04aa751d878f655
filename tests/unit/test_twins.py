"""The generated twins are what the authored modules say now."""

import subprocess
import sys
from pathlib import Path


def test_every_twin_is_current(repository: Path) -> None:
    """Nobody changed a generated module, or an authored one without generating."""
    command = [sys.executable, "tools/async_to_sync.py", "--check"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)

    assert "" == done.stdout + done.stderr
    assert 0 == done.returncode
