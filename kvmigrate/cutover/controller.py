"""Moves a migration from stage to stage: serial, under a lease, every step a compare-and-set.

A move announces itself in the control row. Whoever types the same command after a crash goes on with it, from
whatever stands in both stores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from typing import NamedTuple

from kvmigrate.cutover import back, forward, retire, switch
from kvmigrate.cutover.decide import ORDER, Fences, Step, next_step
from kvmigrate.cutover.draining import drain_open, drain_reverse
from kvmigrate.cutover.facts import gather
from kvmigrate.cutover.fences import follow_tables, seal
from kvmigrate.cutover.gate import GateReport, evaluate
from kvmigrate.cutover.intent import Intent, foreign_phase, read_intent
from kvmigrate.cutover.leased import Held, leased, new_holder
from kvmigrate.cutover.mend import mend_all
from kvmigrate.cutover.sides import Sides
from kvmigrate.cutover.trouble import Trouble
from kvmigrate.errors import (
    CheckFailedError,
    ConfigError,
    DeadlineError,
    FenceMissingError,
    KVMigrateError,
    SourceError,
    StaleError,
    TargetError,
)
from kvmigrate.model import Authority, Stage
from kvmigrate.target.live_base import Control

MOST_STEPS = 60
"""No move has more, however often it is cut short."""


class Moved(NamedTuple):
    """What a command did.

    Attributes:
        stall_ms: How long nobody could write; ``None`` where the authority did not move.

        steps: What was done, in order.

        mended: What was found wrong before, and mended.
    """

    before: Stage
    after: Stage
    epoch: int
    authority: Authority
    stall_ms: float | None
    steps: tuple[str, ...]
    mended: tuple[Trouble, ...]


class Controller:
    """Moves one scope. One thread at a time."""

    def __init__(self, sides: Sides, *, who: str) -> None:
        """Name who asks, for the change log."""
        self._sides, self._who, self._holder = sides, who, new_holder()

    def gate(self, to: Stage, overrides: Mapping[str, str] | None = None) -> GateReport:
        """Tell what the gate into *to* still wants. Changes nothing."""
        return evaluate(gather(self._sides, to), overrides or {})

    def next_stage(self) -> Stage | None:
        """Return where `advance` goes now; ``None`` from the last stage."""
        control = self._sides.row.read()
        intent = read_intent(control)
        if intent is not None and _is_forward(control, intent):
            return intent.to
        place = ORDER.index(control.stage) + 1
        return ORDER[place] if place < len(ORDER) else None

    def advance(self, to: Stage | None = None, *, why: str = "", overrides: Mapping[str, str] | None = None) -> Moved:
        """Go one stage forward, or go on with that if it was cut short.

        Args:
            to: The stage that is wanted: where it is reached already, nothing is done.

            why: For the change log.

            overrides: Checks of the gate that need not pass, each with the reason.

        Raises:
            CheckFailedError: the gate refuses; or a flip was given up, and the store is open as before.

            ConfigError: *to* is not the next stage.
        """

        def begin(control: Control) -> None:
            target = _neighbour(control.stage, 1, to)
            if target is Stage.RAMPDOWN:
                drain_open(self._sides, seconds=self._sides.limits.before_s, low=self._sides.limits.low)
            report = self.gate(target, overrides)
            report.check()
            for name, reason in (overrides or {}).items():
                self._sides.row.log("override", before=name, after=str(target), why=reason, who=self._who)
            self._begin_forward(control, target)

        return self._move(begin, to, why, forward_move=True)

    def rollback(self, to: Stage | None = None, *, why: str = "") -> Moved:
        """Go one stage back, write authority included; no gate. A flip that has not opened the tables is given up.

        Raises:
            CheckFailedError: the drain took too long, and the tables are open as before.

            ConfigError: *to* is not the stage before.
        """

        def begin(control: Control) -> None:
            self._begin_back(control, _neighbour(control.stage, -1, to))

        return self._move(begin, to, why, forward_move=False)

    def resume(self) -> bool:
        """Go on with a move that was cut short, if there is one; the caller holds the lease. Returns whether.

        Raises:
            CheckFailedError: it was given up.
        """
        if read_intent(self._sides.row.read()) is None:
            return False
        with self._signed("gone on with"):
            self._run(None)
        return True

    def _move(self, begin: Callable[[Control], None], to: Stage | None, why: str, *, forward_move: bool) -> Moved:
        sides = self._sides
        sides.done.clear()
        with leased(sides.row, self._holder, seconds=sides.limits.lease_s) as held:
            self._check_phase(sides.row.read())
            mended = mend_all(sides, who=self._who)
            before = sides.row.read()
            with self._signed(why):
                control = self._go_on(before, held, forward_move=forward_move)
                went_on = control.stage is not before.stage or (before.phase and not control.phase)
                if to is not control.stage and not (to is None and went_on):
                    self._check_phase(control)
                    held.prolong()
                    begin(control)
                    self._run(held)
            return self._moved(before, mended)

    def _go_on(self, control: Control, held: Held, *, forward_move: bool) -> Control:
        """Finish, or give up, what was begun before."""
        intent = read_intent(control)
        if intent is None:
            return control
        if not forward_move and forward.is_flip_pending(control):
            forward.abort_flip(self._sides, control)
        elif intent.owing or _is_forward(control, intent) == forward_move:
            self._run(held)
        else:
            other = "advance" if not forward_move else "rollback"
            raise CheckFailedError(
                f"a move to {intent.to} was begun and not finished", hint=f"`kvmigrate stage {other}` finishes it"
            )
        return self._sides.row.read()

    def _check_phase(self, control: Control) -> None:
        if phase := foreign_phase(control):
            raise CheckFailedError(
                f"the phase {phase!r} is not over",
                hint="run `kvmigrate backfill` to its end first",
            )

    def _begin_forward(self, control: Control, to: Stage) -> None:
        sides = self._sides
        match to:
            case Stage.DUALWRITE:
                switch.begin_mirroring(sides, control)
            case Stage.RAMPDOWN:
                forward.begin_flip(sides, control)
            case Stage.COMPLETE:
                retire.begin_retiring(sides, control, to)
            case _:
                self._set_stage(control, to)

    def _begin_back(self, control: Control, to: Stage) -> None:
        sides = self._sides
        match to:
            case Stage.RAMPDOWN:
                retire.begin_retiring(sides, control, to)
            case Stage.LIVE:
                drain_reverse(sides, seconds=sides.limits.before_s, low=sides.limits.low)
                back.begin_back(sides, control)
            case Stage.OFF:
                switch.end_mirroring(sides, control)
            case _:
                self._set_stage(control, to)

    def _set_stage(self, control: Control, to: Stage) -> None:
        self._sides.row.swap(epoch=control.epoch, authority=control.authority, changes={"stage": to}, alone=False)
        self._sides.did("stage")

    def _run(self, held: Held | None) -> None:
        """Do step after step until no move is under way."""
        sides = self._sides
        for _ in range(MOST_STEPS):
            if held is not None:
                held.prolong()
            control = sides.row.read()
            fences = sides.store.fences()
            step = next_step(control, fences)
            if step is Step.NOTHING:
                return
            self._do(step, control, fences)
        raise CheckFailedError("the move does not come to an end", hint="`kvmigrate stage show` tells where it is")

    def _do(self, step: Step, control: Control, fences: Fences) -> None:
        sides, intent = self._sides, read_intent(control)
        assert intent is not None  # noqa: S101 - else there would be no step
        match step:
            case Step.CREATE | Step.OPEN_STORE:
                switch.log_writes(sides, control, intent.to)
            case Step.SEAL:
                # With all shards closed, whatever is not done next keeps everybody waiting.
                if seal(sides, control, fences):
                    self._open_tables(control)
            case Step.OPEN_TABLES:
                self._open_tables(control)
            case Step.OPEN_REVERSE:
                follow_tables(sides, control, Authority.TABLES, fences)
            case Step.REOPEN_STORE:
                self._reopen_store(control)
            case Step.RETIRE:
                retire.retire(sides, control)
            case Step.OWE_ALL:
                retire.owe_everything(sides, control)
            case Step.FINISH:
                self._finish(control, intent)
            case Step.ABORT:
                forward.abort_flip(sides, control)
                raise CheckFailedError(
                    f"the flip was given up: the fences were {_places(fences)}",
                    hint="the store is open as before; type the same command again",
                )
            case _:
                mend_all(sides, who=self._who)

    def _open_tables(self, control: Control) -> None:
        try:
            sealed = forward.open_tables(self._sides, control)
        except (CheckFailedError, DeadlineError, FenceMissingError, StaleError) as exc:
            forward.abort_flip(self._sides, control)
            raise CheckFailedError(
                f"the flip was given up, and the store is open as before: {exc}", hint=exc.hint
            ) from exc
        except (SourceError, TargetError):
            # A side that does not answer can perhaps still be told; else whoever comes next does it.
            with suppress(KVMigrateError):
                forward.abort_flip(self._sides, control)
            raise
        now = self._sides.row.read()
        if (now.epoch, now.authority) == (control.epoch + 1, Authority.TABLES):
            follow_tables(self._sides, now, Authority.TABLES, sealed)

    def _reopen_store(self, control: Control) -> None:
        try:
            back.reopen_store(self._sides, control)
        except CheckFailedError as exc:
            if not back.restart_tables(self._sides, control):
                raise
            self._run(None)
            raise CheckFailedError(
                f"the rollback was given up, and the tables are open as before: {exc}", hint=exc.hint
            ) from exc

    def _finish(self, control: Control, intent: Intent) -> None:
        if control.authority is Authority.SEALED:
            back.finish_back(self._sides, control)
            return
        if intent.to is Stage.DUALWRITE and not switch.check_logging(self._sides, control):
            return
        changes = {"stage": intent.to, "phase": ""}
        self._sides.row.swap(epoch=control.epoch, authority=control.authority, changes=changes, alone=False)
        self._sides.did("finish")

    def _signed(self, why: str) -> AbstractContextManager[None]:
        return self._sides.row.signed("stage", why=why, who=self._who)

    def _moved(self, before: Control, mended: list[Trouble]) -> Moved:
        now = self._sides.row.read()
        steps = tuple(name for name, _ in self._sides.done)
        return Moved(before.stage, now.stage, now.epoch, now.authority, self._stall_ms(), steps, tuple(mended))

    def _stall_ms(self) -> float | None:
        """How long nobody could write, as far as this process saw it."""
        times = dict(self._sides.done)
        for closed, opened in (("seal", "tables open"), ("tables sealed", "store open")):
            if closed in times and opened in times:
                return round((times[opened] - times[closed]) * 1000, 1)
        return None


def _neighbour(stage: Stage, by: int, wanted: Stage | None) -> Stage:
    place = ORDER.index(stage) + by
    if not 0 <= place < len(ORDER):
        raise ConfigError(f"{stage} is the {'last' if by > 0 else 'first'} stage", hint="kvmigrate stage show")
    if wanted is not None and wanted is not ORDER[place]:
        raise ConfigError(
            f"the stage is {stage}, and from there it goes to {ORDER[place]}, not to {wanted}",
            hint="one stage at a time; each has a gate of its own",
        )
    return ORDER[place]


def _is_forward(control: Control, intent: Intent) -> bool:
    if intent.to is Stage.RAMPDOWN:
        return control.stage is not Stage.COMPLETE
    return ORDER.index(intent.to) > ORDER.index(control.stage)


def _places(fences: Fences) -> str:
    return ", ".join(
        f"{shard}: {'none' if fence is None else f'{fence.authority} at {fence.epoch}'}"
        for shard, fence in list(fences.items())[:5]
    )
