"""What to do next, from what stands in both stores and nothing else: so a move goes on wherever it was cut short."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from kvmigrate.cutover.intent import Intent, foreign_phase, read_intent
from kvmigrate.model import Authority, Fence, Logging, Stage
from kvmigrate.target.live_base import Control

Place = tuple[int, Authority]
Fences = Mapping[str, Fence | None]

ORDER = tuple(Stage)
"""The stages on the way forward; each move goes to a neighbour."""


class Step(enum.StrEnum):
    """One compare-and-set, or several that are safe to repeat together."""

    NOTHING = "nothing"
    """No move is under way."""

    CREATE = "create"
    """Give shards without a fence a closed one."""

    OPEN_STORE = "open the store"
    """Bring every shard to the control row's epoch, open, with the logging of the stage."""

    SEAL = "seal"
    """Close every shard."""

    OPEN_TABLES = "open the tables"
    """All shards are sealed: replicas, incarnations, drain; then the control row goes to the tables."""

    OPEN_REVERSE = "open the reverse mirror"
    """The tables are open: the shards follow, whatever place they are in."""

    REOPEN_STORE = "reopen the store"
    """The tables are sealed: drain what they owe; then open every shard."""

    RETIRE = "retire the store"
    """Nothing writes the store any more."""

    OWE_ALL = "owe all"
    """Owe every key to the store, which was not written for a while or lost something; then finish."""

    FINISH = "finish"
    """Write the stage, and that nothing is under way."""

    ABORT = "abort"
    """The shards are not where a flip needs them: open the store at a new epoch."""

    TROUBLE = "trouble"
    """A store is in a place that no move leads to: that is for whoever mends."""


def place(fence: Fence | None) -> Place | None:
    """Return epoch and authority."""
    return None if fence is None else (fence.epoch, fence.authority)


def next_step(control: Control, fences: Fences) -> Step:
    """Return what the move that is under way needs next."""
    intent = read_intent(control)
    if intent is None:
        return Step.NOTHING
    match intent.to, control.authority:
        case Stage.DUALWRITE | Stage.OFF, Authority.STORE:
            return _switch_logging(control, fences, intent)
        case Stage.RAMPDOWN, Authority.STORE:
            return _close_store(control, fences)
        case Stage.RAMPDOWN, Authority.TABLES:
            return _follow_tables(control, fences, intent)
        case Stage.LIVE, Authority.SEALED:
            return _give_back(control, fences)
        case Stage.COMPLETE, Authority.TABLES:
            return _move_fences(control, fences, Authority.TABLES, Authority.RETIRED, Step.RETIRE)
        case _:
            return Step.TROUBLE


def expected(control: Control) -> set[Place | None]:
    """Return where a shard's fence may be while all is well; ``None`` stands for a fence that is not there."""
    epoch = control.epoch
    intent = read_intent(control)
    to = intent.to if intent else None
    if control.authority is Authority.STORE:
        found: set[Place | None] = {(epoch, Authority.STORE)}
        if to is Stage.RAMPDOWN:
            found.add((epoch + 1, Authority.SEALED))
        return found
    if control.authority is Authority.SEALED:
        return {(epoch - 1, Authority.TABLES), (epoch, Authority.STORE)}
    found = {(epoch, Authority.RETIRED if control.stage is Stage.COMPLETE else Authority.TABLES)}
    if intent is not None and to is Stage.RAMPDOWN:
        # The shards follow from wherever they are.
        found |= {(epoch, Authority.SEALED), (epoch, Authority.TABLES)}
    elif to is Stage.COMPLETE:
        found |= {(epoch, Authority.TABLES), (epoch, Authority.RETIRED)}
    return found


def logging_of(stage: Stage, control: Control, *, has_items: bool) -> Logging:
    """Return what writes of the store leave behind in *stage*; *has_items*: the ledger knows any item.

    From the control row and the ledger alone: the fence of a replica that took over may be of an earlier time.
    """
    if stage is Stage.OFF:
        return Logging.NONE
    if foreign_phase(control):
        # A first load is open: the tables have no keys, so nobody may mirror.
        return Logging.MARK_ONLY
    return Logging.MIRROR if has_items or control.is_backfilled else Logging.MARK_ONLY


def _switch_logging(control: Control, fences: Fences, intent: Intent) -> Step:
    here = (control.epoch, Authority.STORE)
    if None in fences.values():
        return Step.CREATE
    known = [fence for fence in fences.values() if fence is not None]
    if any(fence.epoch > control.epoch or fence.authority in {Authority.TABLES, Authority.RETIRED} for fence in known):
        return Step.TROUBLE
    is_off = intent.to is Stage.OFF
    if all(place(fence) == here and (fence.log is Logging.NONE) == is_off for fence in known):
        return Step.FINISH
    return Step.OPEN_STORE


def _close_store(control: Control, fences: Fences) -> Step:
    before, sealed = (control.epoch, Authority.STORE), (control.epoch + 1, Authority.SEALED)
    places = {place(fence) for fence in fences.values()}
    if places == {sealed}:
        return Step.OPEN_TABLES
    return Step.SEAL if places <= {before, sealed} else Step.ABORT


def _follow_tables(control: Control, fences: Fences, intent: Intent) -> Step:
    if intent.owing:
        is_there = {place(fence) for fence in fences.values()} == {(control.epoch, Authority.TABLES)}
        return Step.OWE_ALL if is_there else Step.OPEN_REVERSE
    return _move_fences(control, fences, Authority.SEALED, Authority.TABLES, Step.OPEN_REVERSE)


def _give_back(control: Control, fences: Fences) -> Step:
    before, after = (control.epoch - 1, Authority.TABLES), (control.epoch, Authority.STORE)
    places = {place(fence) for fence in fences.values()}
    if places == {after}:
        return Step.FINISH
    return Step.REOPEN_STORE if places <= {before, after} else Step.TROUBLE


def _move_fences(control: Control, fences: Fences, before: Authority, after: Authority, step: Step) -> Step:
    places = {place(fence) for fence in fences.values()}
    if places == {(control.epoch, after)}:
        return Step.FINISH
    return step if places <= {(control.epoch, before), (control.epoch, after)} else Step.TROUBLE
