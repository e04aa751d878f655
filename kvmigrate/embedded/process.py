"""A server process that cannot outlive the program that started it."""

import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

# The guard is the server's parent and waits on a pipe that only this program holds open. A line means: stop the
# server. The pipe's end means: this program died, however it died; stop the server and remove its junk.
# PR_SET_PDEATHSIG would not do: it fires when the *thread* that started the server ends, and only on Linux.
_GUARD = """
stop=$1 junk=$2
shift 2
exec 3<&0
"$@" 3<&- </dev/null &
server=$!
(
  orphaned=0
  read -r _ <&3 || orphaned=7
  trap "" TERM
  kill -s "$stop" "$server"
  exit "$orphaned"
) &
watch=$!
wait "$server"
status=$?
kill "$watch" 2>/dev/null
wait "$watch"
if [ $? = 7 ] && [ -n "$junk" ]; then rm -rf -- "$junk"; fi
exit "$status"
"""

_STOP_TIMEOUT_S = 20.0


class GuardedProcess:
    """A running server in a session of its own; ends with `close`, at exit, or when this program dies."""

    def __init__(
        self, argv: Sequence[str], *, log: Path, stop: signal.Signals, uid: int | None = None, junk: Path | None = None
    ) -> None:
        """Start *argv*.

        Args:
            argv: Program and arguments; no shell interprets them.

            log: File that takes its output; it is appended to.

            stop: The signal that asks this server for an orderly end.

            uid: Run as this user and group; needs root.

            junk: Directory that `close` removes, and the guard if this program dies without `close`.
        """
        self._owner_pid = os.getpid()
        self._junk = junk
        with log.open("ab") as output:
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "kvmigrate-guard", stop.name.removeprefix("SIG"), str(junk or ""), *argv],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=plain_environment(),
                start_new_session=True,
                user=uid,
                group=uid,
                extra_groups=None if uid is None else [],
            )
        atexit.register(self.close)

    def is_running(self) -> bool:
        """Return whether the server still runs."""
        return self._guard.poll() is None

    def close(self) -> None:
        """Stop the server, wait for its end, remove its junk. Safe to call twice; does nothing in a forked child."""
        if os.getpid() != self._owner_pid:
            return
        self.stop()
        if self._junk is not None:
            shutil.rmtree(self._junk, ignore_errors=True)

    def stop(self) -> None:
        """Stop the server and wait for its end; the junk stays."""
        atexit.unregister(self.close)
        if self._guard.stdin is not None and not self._guard.stdin.closed:
            # A forked child may hold the pipe open, so its end alone would not be seen.
            with contextlib.suppress(OSError):
                self._guard.stdin.write(b"\n")
                self._guard.stdin.flush()
            with contextlib.suppress(OSError):
                self._guard.stdin.close()
        try:
            self._guard.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._guard.pid, signal.SIGKILL)
            self._guard.wait()


def plain_environment() -> dict[str, str]:
    """Return an environment in which no variable of the caller (``PGDATA``, ``LC_ALL`` ...) changes a server."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def free_port() -> int:
    """Return a TCP port that nobody listened on just now; another program may still take it first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def last_lines(log: Path, *, lines: int = 8) -> str:
    """Return the end of *log*, or an empty string if there is none."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
