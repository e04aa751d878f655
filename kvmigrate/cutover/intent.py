"""What a control row's phase says of a move that has begun: where it goes, and at which epoch that was said."""

from __future__ import annotations

from typing import NamedTuple

from kvmigrate.model import Stage
from kvmigrate.target.live_base import Control

_PREFIX = "to"
_OWING = "owing"
_REPLICAS = "replicas="


class Intent(NamedTuple):
    """A move between stages that was begun and not finished.

    Attributes:
        to: The stage that it leads to.

        epoch: Of the control row when it was written. At another epoch it is void: somebody else took over.

        owing: The tables owe the store every key before it is done.

        replicas: So many of the store's replicas must have the seal, whoever goes on with it.
    """

    to: Stage
    epoch: int
    owing: bool = False
    replicas: int = 0

    @property
    def text(self) -> str:
        """What stands in ``control.phase``, such as ``to rampdown at 5``."""
        replicas = f" {_REPLICAS}{self.replicas}" if self.replicas else ""
        return f"{_PREFIX} {self.to} at {self.epoch}{replicas}" + (f" {_OWING}" if self.owing else "")


def read_intent(control: Control) -> Intent | None:
    """Return the intent that is in force; ``None`` where there is none, it is void, or the phase is another's."""
    match control.phase.split():
        case [prefix, stage, "at", epoch, *more] if prefix == _PREFIX and epoch.isdecimal() and stage in set(Stage):
            replicas = [each.removeprefix(_REPLICAS) for each in more if each.startswith(_REPLICAS)]
            count = max((int(each) for each in replicas if each.isdecimal()), default=0)
            found = Intent(Stage(stage), int(epoch), owing=_OWING in more, replicas=count)
            return found if found.epoch == control.epoch else None
        case _:
            return None


def foreign_phase(control: Control) -> str:
    """Return the phase if it is no move between stages, such as a first load; else ""."""
    return "" if control.phase.startswith(f"{_PREFIX} ") else control.phase


def phase_without_intent(control: Control) -> str:
    """Return what the phase is once a move is given up or done: "", or what others wrote there."""
    return foreign_phase(control)
