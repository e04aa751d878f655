"""Signals that end a program wherever its main thread is."""

import subprocess
import sys

import pytest

PATIENCE_S = 60.0
# The main thread has the event's lock, as it has for a moment whenever it begins or ends to wait.
_WITHIN_A_WAIT = """
import signal, threading
from kvmigrate.cli.signals import ended_by_signals

stop = threading.Event()
with ended_by_signals(stop):
    with stop._cond:
        signal.raise_signal(signal.{name})
    stop.wait()
print("ended")
"""
_TWICE = """
import signal, threading
from kvmigrate.cli.signals import ended_by_signals

try:
    with ended_by_signals(threading.Event()):
        signal.raise_signal(signal.SIGTERM)
        print("once")
        signal.raise_signal(signal.SIGINT)
        print("not here")
except KeyboardInterrupt:
    print("at once", flush=True)
signal.raise_signal(signal.SIGTERM)
"""


def run(text: str) -> tuple[int, str]:
    """How a program ends, and what it says."""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_while_the_main_thread_begins_to_wait_ends_it(name: str) -> None:
    """The handler takes no lock that the main thread may hold."""
    assert (0, "ended\n") == run(_WITHIN_A_WAIT.format(name=name))


def test_a_second_signal_ends_it_at_once() -> None:
    """Behind the block the handlers are those from before."""
    assert (-15, "once\nat once\n") == run(_TWICE)
