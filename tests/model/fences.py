"""A fence that is missing is never a default: it is recreated closed, owing all, while a flip may be under way.

The fence is lost together with the marks, at any time, a seal included. The steps of a recreation: (1) in the tables,
the epoch is raised and a full reconcile is owed, if the store is the authority there; (2) the fence is created sealed,
if it is still missing; (3) control is looked at again; (4) the fence is opened by compare and set.
A writer that is cut off from the tables too may let writes pass unmarked, until it may have missed the stage ``live``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.explorer import need


class Naive(enum.Enum):
    """One rule of recreating a fence left out."""

    WHILE_TABLES_MAY_BE_OPEN = enum.auto()
    FROM_A_PLAIN_READ = enum.auto()
    OPEN_AT_ONCE = enum.auto()
    INTENT_IGNORED = enum.auto()
    NOTHING_OWED = enum.auto()
    CUT_OFF_TRUSTS_LAST = enum.auto()
    GATE_IGNORES_PROCESSES = enum.auto()
    PASS_AFTER_CHECK = enum.auto()
    SEAL_SET_AGAIN = enum.auto()
    DRAINED_WITHOUT_SEAL = enum.auto()


@dataclass(frozen=True, slots=True)
class Setup:
    """A scenario: how often the fence is lost, writes, processes, and whether the last one is cut off from the tables.

    Attributes:
        crashes: How often the controller may stop and go on from the intent in control; a seal may be lost meanwhile.
    """

    losses: int = 1
    writes: int = 3
    processes: int = 2
    cut_off: bool = False
    crashes: int = 0


class Fence(NamedTuple):
    """The store's fence; *owes* is that marks were lost."""

    epoch: int
    authority: str
    owes: bool


class Process(NamedTuple):
    """A writer: what it is doing, the epoch that it raised, whether it knows ``live``, whether its heartbeat counts."""

    doing: str = "run"
    epoch: int = 0
    knows_live: bool = False
    beats: bool = True


class Flip(NamedTuple):
    """The flip; while it has a phase, its intent stands in control, at *epoch*."""

    phase: str = ""
    epoch: int = 0


class State(NamedTuple):
    """Everything at one moment; *value* is in the store, *row* in the tables, *accepted* the last accepted write."""

    fence: Fence | None
    control: tuple[int, str]
    owes_all: bool
    value: int
    row: int
    accepted: int
    marked: bool
    processes: tuple[Process, ...]
    flip: Flip
    left: int
    losses: int
    live: bool
    crashes: int


Step = tuple[str, State]


class Fences:
    """The model; see `tests.model.explorer.Model`."""

    def __init__(self, setup: Setup, naive: Naive | None = None) -> None:
        self.setup = setup
        self.naive = naive

    def start(self) -> State:
        """Return the first state: the store is open, stage shadow."""
        setup = self.setup
        return State(
            Fence(1, "K", owes=False), (1, "K"), owes_all=False, value=0, row=0, accepted=0, marked=False,
            processes=(Process(),) * setup.processes, flip=Flip(), left=setup.writes, losses=setup.losses,
            live=False, crashes=setup.crashes,
        )  # fmt: skip

    def steps(self, state: State) -> Iterator[Step]:
        """Yield what writers, copiers, the controller or the world can do next."""
        if state.losses:
            yield "fence and marks are lost", state._replace(fence=None, marked=False, losses=state.losses - 1)
        for number, process in enumerate(state.processes):
            yield from self._process(state, number, process)
        yield from self._copiers(state)
        yield from self._controller(state)
        if not state.live:
            yield "stage live", state._replace(live=True)
        else:
            yield from self._flip(state)

    def _is_calm(self, state: State) -> bool:
        """Whether no flip has announced itself at control's epoch."""
        flips = state.flip.phase and state.flip.epoch == state.control[0]
        return not flips or self.naive is Naive.INTENT_IGNORED

    @staticmethod
    def _with(state: State, number: int, process: Process) -> State:
        processes = state.processes
        return state._replace(processes=(*processes[:number], process, *processes[number + 1 :]))

    @staticmethod
    def _written(state: State) -> State:
        value = state.accepted + 1
        return state._replace(value=value, accepted=value, left=state.left - 1)

    def _process(self, state: State, number: int, process: Process) -> Iterator[Step]:
        who, fence = f"writer {number}", state.fence
        cut_off = self.setup.cut_off and number == len(state.processes) - 1
        if not cut_off and state.live and not process.knows_live:
            yield f"{who} sees live", self._with(state, number, process._replace(knows_live=True))
        if cut_off and process.beats:
            yield f"{who}'s heartbeat grows old", self._with(state, number, process._replace(beats=False))
        if process.doing == "run":
            if state.left and fence and fence.authority == "K":
                yield f"{who} writes the store", self._written(state)._replace(marked=True)
            if state.left and state.control[1] == "T" and not cut_off:
                value = state.accepted + 1
                yield f"{who} writes the tables", state._replace(row=value, accepted=value, left=state.left - 1)
            if fence is None and not cut_off:
                yield f"{who} finds no fence", self._with(state, number, process._replace(doing="ask"))
            if fence is None and cut_off:
                yield from self._passes(state, number, process)
        elif process.doing == "pass" and state.left:
            yield f"{who} writes unmarked", self._with(self._written(state), number, process._replace(doing="run"))
        elif process.doing != "pass":
            yield from self._recreate(state, number, process)

    def _passes(self, state: State, number: int, process: Process) -> Iterator[Step]:
        """No fence and no tables: unmarked, in the step that sees no fence, if no flip can have happened."""
        if not (process.beats and not process.knows_live) and self.naive is not Naive.CUT_OFF_TRUSTS_LAST:
            return
        if self.naive is Naive.PASS_AFTER_CHECK:
            yield f"writer {number} decides to pass", self._with(state, number, process._replace(doing="pass"))
        elif state.left:
            yield f"writer {number} writes unmarked", self._written(state)

    def _recreate(self, state: State, number: int, process: Process) -> Iterator[Step]:
        who, fence, control = f"writer {number}", state.fence, state.control
        done = self._with(state, number, process._replace(doing="run"))
        opens = self.naive in (Naive.OPEN_AT_ONCE, Naive.FROM_A_PLAIN_READ, Naive.WHILE_TABLES_MAY_BE_OPEN)
        owes = self.naive is not Naive.NOTHING_OWED
        if process.doing == "ask" and control[1] != "K" and self.naive is not Naive.WHILE_TABLES_MAY_BE_OPEN:
            yield f"{who} fails closed", done
        elif process.doing == "ask":
            epoch = control[0] + (0 if self.naive is Naive.FROM_A_PLAIN_READ else 1)
            raised = state._replace(control=(epoch, control[1]), owes_all=owes)
            yield (
                f"{who} raises control's epoch",
                self._with(raised, number, process._replace(doing="create", epoch=epoch)),
            )
        elif process.doing == "create" and fence is None:
            created = state._replace(fence=Fence(process.epoch, "K" if opens else "S", owes))
            then = process._replace(doing="run" if opens else "look again")
            yield f"{who} creates the fence", self._with(created, number, then)
        elif process.doing == "create":
            yield f"{who} finds a fence", done
        elif process.doing == "look again":
            same = control == (process.epoch, "K") and self._is_calm(state)
            then = process._replace(doing="open" if same else "run")
            yield f"{who} looks at control again", self._with(state, number, then)
        elif process.doing == "open":
            mine = fence is not None and (fence.epoch, fence.authority) == (process.epoch, "S")
            opened = fence._replace(authority="K") if fence and mine else fence
            yield f"{who} opens", done._replace(fence=opened)

    def _copiers(self, state: State) -> Iterator[Step]:
        fence, control = state.fence, state.control
        if fence and fence.authority in ("K", "S") and state.marked and control[1] == "K":
            yield "applier", state._replace(row=state.value, marked=False)
        if fence and (fence.epoch, fence.authority) == control and control[1] == "K" and (state.owes_all or fence.owes):
            reconciled = state._replace(row=state.value, marked=False, owes_all=False)
            yield "full reconcile", reconciled._replace(fence=fence._replace(owes=False))

    def _controller(self, state: State) -> Iterator[Step]:
        """It raises a shard below control, or left sealed without an intent; it alone re-imposes open tables."""
        fence, (epoch, authority) = state.fence, state.control
        low = fence and (fence.epoch < epoch or (fence.epoch, fence.authority) == (epoch, "S"))
        if fence and low and authority == "K" and self._is_calm(state):
            yield "controller raises the shard", state._replace(fence=Fence(epoch, "K", fence.owes))
        if authority == "T" and (fence is None or fence.epoch < epoch):
            yield "controller closes the store again", state._replace(fence=Fence(epoch, "T", owes=False))

    def _flip(self, state: State) -> Iterator[Step]:
        """Gate, seal, drain, open the tables, open the reverse mirror."""
        (phase, epoch), fence, control = state.flip, state.fence, state.control
        sealed = fence == (epoch + 1, "S", False)
        aborted = state._replace(flip=Flip(), control=(epoch + 2, "K") if control == (epoch, "K") else control)
        if not phase:
            if control[1] == "K" and not state.owes_all and self._all_know(state):
                yield "flip: the gate is open, intent", state._replace(flip=Flip("intent", control[0]))
        elif phase == "intent" and fence == (epoch, "K", False):
            yield "flip seals", state._replace(fence=Fence(epoch + 1, "S", owes=False), flip=Flip("sealed", epoch))
        elif phase == "intent":
            yield "flip cannot seal", state._replace(flip=Flip())
        elif phase in ("sealed", "unmarked"):
            yield from self._drain(state, sealed=sealed, aborted=aborted)
        elif phase == "drained" and control == (epoch, "K"):
            yield "flip opens the tables", state._replace(control=(epoch + 1, "T"), flip=Flip("opened", epoch))
        elif phase == "drained":
            yield "flip aborts", aborted
        elif phase == "opened" and fence and (fence.epoch, fence.authority) == (epoch + 1, "S"):
            yield "flip opens the reverse mirror", state._replace(fence=Fence(epoch + 1, "T", owes=False))
        if phase == "drained" and state.crashes:
            # What was drained is forgotten; the intent is not.
            yield "controller restarts", state._replace(flip=Flip("sealed", epoch), crashes=state.crashes - 1)

    def _drain(self, state: State, *, sealed: bool, aborted: State) -> Iterator[Step]:
        """No mark, and then the seal is still there: marks may be gone because the seal is, and none come under it."""
        phase, epoch = state.flip
        if phase == "sealed" and not state.marked:
            yield "flip finds no marks", state._replace(flip=Flip("unmarked", epoch))
        elif phase == "unmarked" and (sealed or self.naive is Naive.DRAINED_WITHOUT_SEAL):
            yield "flip finds all drained", state._replace(flip=Flip("drained", epoch))
        if not sealed:
            yield "flip lost its seal, aborts", aborted
            if self.naive is Naive.SEAL_SET_AGAIN and state.fence is None:
                yield "flip seals again", state._replace(fence=Fence(epoch + 1, "S", owes=False))

    def _all_know(self, state: State) -> bool:
        """The gate: every process has seen ``live``, or its heartbeat is so old that it lets nothing pass unmarked."""
        known = all(process.knows_live or not process.beats for process in state.processes)
        return known or self.naive is Naive.GATE_IGNORES_PROCESSES

    def check_state(self, state: State) -> None:
        """SINGLE, AUTH; CLEAN: where no mark and no debt says otherwise, the tables hold what the store does."""
        fence, authority = state.fence, state.control[1]
        need("SINGLE", not (fence and fence.authority == "K" and authority == "T"), "store and tables are open")
        need(
            "AUTH",
            authority != "T" or state.row == state.accepted,
            f"the tables are open but hold {state.row}, last accepted is {state.accepted}",
        )
        if authority == "K" and fence and fence.authority in ("K", "S") and not fence.owes and not state.marked:
            need("CLEAN", state.row == state.value, f"no mark, nothing owed, rows {state.row}, store {state.value}")

    def check_step(self, before: State, after: State) -> None:
        """FENCE: control's epoch does not go back."""
        need("FENCE", after.control[0] >= before.control[0], "control's epoch goes back")

    def check_end(self, state: State) -> None:
        """QUIESCE: the flip is done."""
        need("QUIESCE", state.control[1] == "T" and state.fence and state.fence.authority == "T", "flip is never done")
