"""After failovers, restores and interrupted steps: both stores are brought together again.

Every reaction begins with the control row and is safe to repeat; the incarnation that caused it is noted last, so that
one that was cut short is begun again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from kvmigrate.cutover.back import finish_back, restart_tables
from kvmigrate.cutover.decide import Fences, place
from kvmigrate.cutover.fences import PAGE_KEYS, follow_tables, highest, open_store
from kvmigrate.cutover.intent import Intent, phase_without_intent
from kvmigrate.cutover.sides import Sides
from kvmigrate.cutover.suspects import renew_marks, touch_suspects
from kvmigrate.cutover.trouble import Trouble, diagnose
from kvmigrate.errors import CheckFailedError
from kvmigrate.model import Authority, Stage
from kvmigrate.target.live_base import Control

ROUNDS = 6
"""A failover of both sides in the middle of a move takes a few rounds."""


class Seen(NamedTuple):
    """Both sides, read one after the other."""

    control: Control
    fences: Fences
    store_life: str
    target_life: str

    @property
    def trouble(self) -> Trouble:
        """What is wrong."""
        return diagnose(self.control, self.fences, store_life=self.store_life, target_life=self.target_life)


def look(sides: Sides) -> Seen:
    """Read the control row and then the fences."""
    control = sides.row.read()
    if control.epoch == 0:
        return Seen(control, {}, "", "")
    return Seen(control, sides.store.fences(), sides.store.incarnation(), sides.row.incarnation())


def mend_all(sides: Sides, *, who: str) -> list[Trouble]:
    """Mend what is wrong until nothing is; return what it was.

    Raises:
        CheckFailedError: something is left that needs a person.
    """
    found: list[Trouble] = []
    for _ in range(ROUNDS):
        seen = look(sides)
        if seen.trouble is Trouble.NONE:
            return found
        found.append(seen.trouble)
        mend(sides, seen, who=who)
    raise CheckFailedError(
        f"the store and the control row do not come together: {found[-1].value}",
        hint="`kvmigrate stage show` tells where each of them is",
    )


def mend(sides: Sides, seen: Seen, *, who: str) -> None:
    """Mend one trouble, and write down what was done."""
    control = seen.control
    before = f"{control.authority} at {control.epoch}"
    match seen.trouble, control.authority:
        case Trouble.NONE, _:
            return
        case Trouble.FENCE_BEHIND, Authority.STORE:
            open_store(sides, control)
        case Trouble.FENCE_AHEAD, _:
            _agree(sides, seen)
        case _, Authority.STORE:
            _mend_open_store(sides, seen)
        case _, Authority.SEALED:
            _mend_rollback(sides, seen)
        case _:
            _mend_open_tables(sides, seen)
    now = sides.row.read()
    sides.row.log("mend", before=before, after=f"{now.authority} at {now.epoch}", why=seen.trouble.value, who=who)


def _mend_open_store(sides: Sides, seen: Seen) -> None:
    """The store is open, or sealed by a flip that has not opened the tables: a new epoch, and fresh marks."""
    control, trouble = seen.control, seen.trouble
    epoch = highest(control, seen.fences) + 1
    changes = {"epoch": epoch, "phase": phase_without_intent(control), "owes_all": True, "reconcile": ""}
    # A reconcile that begins right now takes over what the fences say, and ends with the epoch: it is not forgotten.
    expect = {"owes_all": control.owes_all}
    if not sides.row.swap(epoch=control.epoch, authority=Authority.STORE, changes=changes, expect=expect):
        return
    sides.did("new epoch")
    now = sides.row.read()
    is_whole = trouble is Trouble.STORE_RESTARTED and not control.owes_all and _is_whole(sides, seen)
    # Where the suspects are known, the fences need not say that all is owed.
    if not open_store(sides, now._replace(owes_all=not is_whole), owes_all=not is_whole):
        return
    if trouble is Trouble.TARGET_RESTARTED:
        renew_marks(sides, epoch)
    elif is_whole and touch_suspects(sides, control, epoch):
        sides.row.swap(epoch=epoch, authority=Authority.STORE, changes={"owes_all": False}, expect={"reconcile": ""})
    else:
        sides.store.note(sides.store.shards(), owes_all=True)
    sides.did("suspects marked")
    _note_lives(sides, seen)


def _is_whole(sides: Sides, seen: Seen) -> bool:
    """Whether the store still has what it had when it was marked last, so that only later keys are suspect.

    Its clock does not tell: writes of the new life may have moved it on already.
    """
    control = seen.control
    here = {(control.epoch, Authority.STORE), (control.epoch + 1, Authority.SEALED)}
    if not control.is_backfilled or not set(sides.store.shards()) <= set(control.safe_n):
        return False
    if any(place(fence) not in here for fence in seen.fences.values()):
        return False
    kept = sides.store.safe()
    return all(shard in kept and kept[shard] >= control.safe_n[shard] for shard in sides.store.shards())


def _mend_rollback(sides: Sides, seen: Seen) -> None:
    """The tables are sealed: finish where the store is open, else open the tables again."""
    control = seen.control
    if {place(fence) for fence in seen.fences.values()} == {(control.epoch, Authority.STORE)}:
        finish_back(sides, control)
    elif not restart_tables(sides, control):
        raise CheckFailedError(
            "some shards of the store are open and others are not, and one of the sides failed over meanwhile",
            hint="`kvmigrate stage show` names them; `kvmigrate stage rollback --force --accept-loss` opens all",
        )
    else:
        _note_lives(sides, seen)


def _mend_open_tables(sides: Sides, seen: Seen) -> None:
    """The tables are open: the store follows and is owed everything; a retired one only gets its fence back."""
    control = seen.control
    is_new = seen.trouble is Trouble.TARGET_RESTARTED
    epoch = highest(control, seen.fences) + 1 if is_new else control.epoch
    if control.stage is Stage.COMPLETE:
        changes: dict[str, Any] = {"epoch": epoch, "phase": ""}
    else:
        changes = {"epoch": epoch, "phase": Intent(Stage.RAMPDOWN, epoch, owing=True).text}
    if not sides.row.swap(epoch=control.epoch, authority=Authority.TABLES, changes=changes):
        return
    sides.did("new epoch" if is_new else "announced")
    now = sides.row.read()
    follow_tables(sides, now, Authority.RETIRED if now.stage is Stage.COMPLETE else Authority.TABLES)
    _note_lives(sides, seen)


def _agree(sides: Sides, seen: Seen) -> None:
    """A fence says what the control row never said: one of them was restored, or opened by force.

    The tables win only where both say so; else the store does: while the tables were open it was given all their
    writes, and while it was open it had them first.
    """
    control = seen.control
    top = max((fence for fence in seen.fences.values() if fence is not None), key=lambda fence: fence.epoch)
    epoch = highest(control, seen.fences) + 1
    if top.authority is Authority.RETIRED and control.authority is not Authority.TABLES:
        raise CheckFailedError(
            f"the store is retired at epoch {top.epoch}, and the control row says {control.authority} at "
            f"{control.epoch}: the database was restored from before that",
            hint="restore a later state of the database; the store does not have what was written since it retired",
        )
    if control.authority is Authority.SEALED and top.authority is not Authority.STORE:
        _mend_rollback(sides, seen)
        return
    if control.authority is Authority.TABLES and top.authority is not Authority.STORE:
        is_retired = control.stage is Stage.COMPLETE
        phase = "" if is_retired else Intent(Stage.RAMPDOWN, epoch, owing=True).text
        sides.row.swap(epoch=control.epoch, authority=Authority.TABLES, changes={"epoch": epoch, "phase": phase})
        sides.did("new epoch")
        follow_tables(sides, sides.row.read(), Authority.RETIRED if is_retired else Authority.TABLES)
        return
    _note_unpaid(sides)
    stage = Stage.LIVE if control.stage in {Stage.RAMPDOWN, Stage.COMPLETE} else control.stage
    changes = {
        "epoch": epoch,
        "authority": Authority.STORE,
        "stage": stage,
        "phase": phase_without_intent(control),
        "owes_all": True,
    }
    sides.row.swap(epoch=control.epoch, authority=control.authority, changes=changes)
    sides.did("new epoch")
    open_store(sides, sides.row.read(), owes_all=True)
    sides.store.note(sides.store.shards(), owes_all=True)


def _note_unpaid(sides: Sides) -> None:
    """Write down the keys whose table writes the store never had: the reconcile that is due takes them over."""
    if not sides.target.owes():
        return
    keys = [owed.key for owed in sides.target.owed(limit=PAGE_KEYS)]
    sides.row.log(
        "lost table writes",
        before=f"{sides.target.owes()} keys",
        after="",
        why=" ".join(keys),
        who="kvmigrate",
    )


def _note_lives(sides: Sides, seen: Seen) -> None:
    changes = {"store_incarnation": seen.store_life, "target_incarnation": seen.target_life}
    if seen.trouble is Trouble.TARGET_RESTARTED:
        # A store that was restarted, too, is mended in a round of its own.
        del changes["store_incarnation"]
    elif seen.trouble is not Trouble.STORE_RESTARTED:
        return
    else:
        del changes["target_incarnation"]
        sides.store.note(sides.store.shards(), incarnation=seen.store_life)
    sides.row.note(changes)
    sides.did("noted")
