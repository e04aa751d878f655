"""What the gate looks at, read from both sides."""

from __future__ import annotations

from collections import Counter

from kvmigrate.cutover.gate import Facts
from kvmigrate.cutover.intent import foreign_phase
from kvmigrate.cutover.readiness import Ready
from kvmigrate.cutover.sides import Sides
from kvmigrate.model import Stage

_HIDDEN = "?"

FORGOTTEN_S = 7 * 86_400.0
"""A command that was not used for so long is in use no more."""


def gather(sides: Sides, to: Stage) -> Facts:
    """Return the facts for the gate into *to*."""
    control = sides.row.read()
    has_fences = control.epoch > 0
    fences = sides.store.fences() if has_fences else {}
    quarantined, waiting = sides.target.unsettled()
    unbuilt = sides.unbuilt() if to is Stage.RAMPDOWN else None
    return Facts(
        stage=control.stage,
        to=to,
        phase=foreign_phase(control),
        is_backfilled=control.is_backfilled,
        quarantined=quarantined,
        waiting=waiting,
        outdated=sides.target.outdated() if to is Stage.RAMPDOWN else 0,
        logging=Counter(None if fence is None else fence.log for fence in fences.values()),
        owes_all=control.owes_all or any(fence is not None and fence.owes_all for fence in fences.values()),
        refusal=sides.row.refusal(),
        marks=sides.store.marks() if has_fences else 0,
        owed=sides.target.owes(),
        processes=sides.row.processes(),
        mapping=sides.mapping,
        tells_failovers=not sides.row.incarnation().endswith(_HIDDEN),
        left=sides.left,
        measured=sides.measured(control) if to in {Stage.LIVE, Stage.RAMPDOWN} else None,
        wish=sides.wish,
        ready=sides.ready() if to in {Stage.LIVE, Stage.RAMPDOWN} else Ready(),
        commands=_in_use(sides) if to is Stage.RAMPDOWN else None,
        unwatched=sides.unwatched() if to is Stage.RAMPDOWN else None,
        pointers=None if unbuilt is None else [f"{name} ({why})" for name, why in sorted(unbuilt.items())],
    )


def _in_use(sides: Sides) -> list[str] | None:
    """Return the commands that were used within `FORGOTTEN_S`; ``None`` where none was ever counted."""
    seen = sides.row.commands()
    used = [f"{each.command} of {each.entity}" for each in seen if each.age_s < FORGOTTEN_S]
    return sorted(used) if seen else None
