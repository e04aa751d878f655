"""What a relay tells of itself, and how its threads go on after failures."""

import json
import threading
from http import HTTPStatus

import pytest

from kvmigrate.cli.health import address_of, answer_to
from kvmigrate.dualwrite.readings import Health, Readings, lag_s, prometheus
from kvmigrate.dualwrite.tasks import Task
from kvmigrate.errors import ConfigError, FenceError, TargetError
from kvmigrate.model import MarkedKey

READINGS = Readings("live", "K", 3, leader=True, lag_s=1.25, marks=7, waiting=1, acked=9, stuck={"a": "why"})


def test_the_lag_is_the_age_of_the_oldest_mark() -> None:
    """By a clock of microseconds; one ahead of ours is no age."""
    assert 0.0 == lag_s([], 100.0)
    assert 2.5 == lag_s([MarkedKey("a", 99_000_000), MarkedKey("b", 97_500_000)], 100.0)
    assert 0.0 == lag_s([MarkedKey("a", 101_000_000)], 100.0)


def test_metrics_have_the_mapping_as_their_only_label() -> None:
    """Each with its kind and what it means; no key stands there."""
    lines = prometheus(READINGS, 'sh"op').splitlines()

    assert 'kvmigrate_mirror_lag_seconds{scope="sh\\"op"} 1.25' in lines
    assert "# TYPE kvmigrate_dirty_keys gauge" in lines
    assert "# TYPE kvmigrate_relay_acked_marks_total counter" in lines
    assert {"scope"} == {line.partition("{")[2].partition("=")[0] for line in lines if not line.startswith("#")}
    assert not any("why" in line for line in lines)


def test_health_is_503_where_a_part_fails() -> None:
    """With the same JSON."""
    status, kind, body = answer_to("/health?x=1", lambda: READINGS, "shop")
    assert (HTTPStatus.OK, "application/json", 7) == (status, kind, json.loads(body)["marks"])
    failing = Readings(health=Health.FAILING, last_error="applier: lost")
    status, _, body = answer_to("/health", lambda: failing, "shop")
    assert (HTTPStatus.SERVICE_UNAVAILABLE, "applier: lost") == (status, json.loads(body)["last_error"])
    assert HTTPStatus.NOT_FOUND == answer_to("/", lambda: READINGS, "shop")[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("9464", ("127.0.0.1", 9464)), ("0.0.0.0:80", ("0.0.0.0", 80)), ("[::1]:9464", ("::1", 9464))],  # noqa: S104 - only read
)
def test_a_port_alone_is_for_this_machine(text: str, expected: tuple[str, int]) -> None:
    """Whoever wants more says so."""
    assert expected == address_of(text)


@pytest.mark.parametrize("text", ["", "host", "host:", ":80", "host:70000"])
def test_an_address_without_a_port_is_refused(text: str) -> None:
    """With what it should look like."""
    with pytest.raises(ConfigError, match="no port"):
        address_of(text)


def test_a_line_says_what_matters() -> None:
    """What is not there is not said."""
    assert "live, authority K, epoch 3; lag 1.2 s, marks 7; waiting 1, quarantined 0; stuck 1" == READINGS.line()
    assert "error" in Readings(last_error="lost").line()


class Scripted:
    """A step that raises or returns what it is told, and then ends the task."""

    def __init__(self, stop: threading.Event, *script: Exception | float) -> None:
        self.stop, self.script, self.done = stop, list(script), list[str]()

    def open(self) -> None:
        """Note it."""
        self.done.append("open")

    def step(self) -> float:
        """Do what comes next."""
        self.done.append("step")
        each = self.script.pop(0)
        if not self.script:
            self.stop.set()
        if isinstance(each, Exception):
            raise each
        return each

    def close(self) -> None:
        """Note it; it fails as a lost connection does."""
        self.done.append("close")
        message = "lost"
        raise TargetError(message)


def run(*script: Exception | float) -> tuple[Scripted, Task]:
    """Run a task to the end of its script."""
    stop = threading.Event()
    step = Scripted(stop, *script)
    task = Task("part", step, stop)
    task.start()
    assert task.join(30)
    return step, task


def test_a_failed_step_begins_with_fresh_connections() -> None:
    """Whatever failed; and what was told of it is forgotten when it goes on."""
    step, task = run(0.0, TargetError("gone"), ValueError("a fault"), 0.0)

    assert ["open", "step", "step", "close", "open", "step", "close", "open", "step", "close"] == step.done
    assert ("", False) == (task.error, task.is_failing)


def test_a_moved_authority_is_no_failure_of_a_connection() -> None:
    """The next step looks again; until then it is told."""
    step, task = run(FenceError("epoch 2"), FenceError("epoch 2"))

    assert ["open", "step", "step", "close"] == step.done
    assert "part: epoch 2" == task.error
