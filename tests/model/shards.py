"""Two shards opened one by one, two controllers of which one may be a zombie, an abort, a rollback.

A controller may stop anywhere, for ever, as long as another is left. Every step of either compares and sets.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.explorer import need

Fence = tuple[int, str]


class Naive(enum.Enum):
    """One rule of flips over several shards left out."""

    ONE_SHARD_SEALED = enum.auto()
    ONE_SHARD_DRAINED = enum.auto()
    NO_COMPARE = enum.auto()
    TABLES_NOT_SEALED = enum.auto()


@dataclass(frozen=True, slots=True)
class Setup:
    """A scenario: how many controllers, writes per shard, and aborts at most."""

    controllers: int = 2
    writes: int = 2
    aborts: int = 1


class Shard(NamedTuple):
    """A shard with the rows of its key; *accepted* is the last accepted write."""

    fence: Fence
    value: int = 0
    row: int = 0
    accepted: int = 0
    marked: bool = False
    owed: bool = False


class Controller(NamedTuple):
    """What a controller is doing, and from which epoch on."""

    doing: str
    epoch: int


class State(NamedTuple):
    """Everything at one moment; *went* is how many flips are done."""

    shards: tuple[Shard, ...]
    control: Fence
    controllers: tuple[Controller, ...]
    left: tuple[int, ...]
    aborts: int
    went: int


Step = tuple[str, State]
BOTH = (0, 1)


class Shards:
    """The model; see `tests.model.explorer.Model`."""

    def __init__(self, setup: Setup, naive: Naive | None = None) -> None:
        self.setup = setup
        self.naive = naive

    def start(self) -> State:
        """Return the first state: the store is open at epoch 1 in both shards."""
        shards, controllers = (Shard((1, "K")),) * 2, (Controller("idle", 0),) * self.setup.controllers
        return State(shards, (1, "K"), controllers, (self.setup.writes,) * 2, self.setup.aborts, 0)

    def steps(self, state: State) -> Iterator[Step]:
        """Yield what writers, copiers or any controller can do next."""
        for number, shard in enumerate(state.shards):
            yield from self._traffic(state, number, shard)
        for who, controller in enumerate(state.controllers):
            yield from getattr(self, f"_{controller.doing.replace(' ', '_')}")(state, who, controller.epoch)

    @staticmethod
    def _shard(state: State, number: int, shard: Shard) -> State:
        return state._replace(shards=(*state.shards[:number], shard, *state.shards[number + 1 :]))

    def _traffic(self, state: State, number: int, shard: Shard) -> Iterator[Step]:
        epoch, authority = state.control
        if state.left[number]:
            value = shard.accepted + 1
            left = tuple(each - (place == number) for place, each in enumerate(state.left))
            if shard.fence[1] == "K":
                written = shard._replace(value=value, accepted=value, marked=True)
                yield f"store write, shard {number}", self._shard(state, number, written)._replace(left=left)
            if authority == "T":
                written = shard._replace(row=value, accepted=value, owed=True)
                yield f"table write, shard {number}", self._shard(state, number, written)._replace(left=left)
        if shard.marked and authority == "K":
            applied = shard._replace(row=shard.value, marked=False)
            yield f"applier, shard {number}", self._shard(state, number, applied)
        if shard.owed and shard.fence == (epoch if authority == "T" else epoch - 1, "T"):
            given = shard._replace(value=shard.row, owed=False)
            yield f"reverse mirror, shard {number}", self._shard(state, number, given)

    @staticmethod
    def _does(state: State, who: int, doing: str, epoch: int) -> State:
        controllers = list(state.controllers)
        controllers[who] = Controller(doing, epoch)
        return state._replace(controllers=tuple(controllers))

    def _swap(self, state: State, number: int, old: Fence, new: Fence, *, clear_marks: bool = False) -> State | None:
        """Compare and set the fence of one shard; ``None`` where it is another one."""
        shard = state.shards[number]
        if shard.fence != old and self.naive is not Naive.NO_COMPARE:
            return None
        return self._shard(state, number, shard._replace(fence=new, marked=shard.marked and not clear_marks))

    def _is_at(self, state: State, fence: Fence) -> bool:
        return state.control == fence or self.naive is Naive.NO_COMPARE

    def _idle(self, state: State, who: int, _epoch: int) -> Iterator[Step]:
        """Begin a flip, or go on with what another controller has left."""
        epoch, authority = state.control
        fences = [shard.fence for shard in state.shards]
        if authority == "K" and state.went == 0:
            yield f"controller {who} begins a flip", self._does(state, who, "forward", epoch)
        elif authority == "T" and any(fence != (epoch, "T") for fence in fences):
            yield f"controller {who} goes on opening", self._does(state, who, "open", epoch)
        elif authority == "T":
            yield f"controller {who} begins a rollback", self._does(state, who, "back", epoch)
        elif authority == "S":
            yield f"controller {who} goes on with the rollback", self._does(state, who, "reopen", epoch)
        elif any(fence[0] < epoch or fence[1] != "K" for fence in fences):
            yield f"controller {who} repairs", self._does(state, who, "raise", epoch)

    def _forward(self, state: State, who: int, epoch: int) -> Iterator[Step]:
        """Seal every shard, drain every shard."""
        fences = [shard.fence for shard in state.shards]
        if state.control[0] != epoch or any(fence[0] < epoch for fence in fences):
            first = ("raise", state.control[0]) if state.control[1] == "K" else ("idle", epoch)
            yield f"controller {who} repairs first", self._does(state, who, *first)
        sealed = (0,) if self.naive is Naive.ONE_SHARD_SEALED else BOTH
        for number in sealed:
            after = self._swap(state, number, (epoch, "K"), (epoch + 1, "S"))
            if fences[number] == (epoch, "K") and after:
                yield f"controller {who} seals shard {number}", after
        if all(fences[number] == (epoch + 1, "S") for number in sealed) and not state.shards[0].marked:
            yield f"controller {who} finds shard 0 drained", self._does(state, who, "drain", epoch)
        yield from self._may_abort(state, who, epoch)

    def _drain(self, state: State, who: int, epoch: int) -> Iterator[Step]:
        """A shard without marks is not looked at again: none come while it is sealed, and that is checked at last."""
        if not state.shards[1].marked or self.naive is Naive.ONE_SHARD_DRAINED:
            yield f"controller {who} finds shard 1 drained", self._does(state, who, "check", epoch)
        yield from self._may_abort(state, who, epoch)

    def _check(self, state: State, who: int, epoch: int) -> Iterator[Step]:
        sealed = BOTH[:1] if self.naive is Naive.ONE_SHARD_SEALED else BOTH
        is_sealed = all(state.shards[number].fence == (epoch + 1, "S") for number in sealed)
        then = "commit" if is_sealed or self.naive is Naive.NO_COMPARE else "forward"
        yield f"controller {who} looks at all seals", self._does(state, who, then, epoch)

    def _may_abort(self, state: State, who: int, epoch: int) -> Iterator[Step]:
        if state.aborts:
            yield f"controller {who} aborts", self._does(state._replace(aborts=state.aborts - 1), who, "abort", epoch)

    def _commit(self, state: State, who: int, epoch: int) -> Iterator[Step]:
        if self._is_at(state, (epoch, "K")):
            opened = state._replace(control=(epoch + 1, "T"), went=1)
            yield f"controller {who} opens the tables", self._does(opened, who, "open", epoch + 1)
        else:
            yield f"controller {who} lost the race", self._does(state, who, "idle", epoch)
        yield from self._may_abort(state, who, epoch)

    def _open(self, state: State, who: int, epoch: int) -> Iterator[Step]:
        for number in BOTH:
            after = self._swap(state, number, (epoch, "S"), (epoch, "T"), clear_marks=True)
            if after:
                yield f"controller {who} opens the reverse mirror of shard {number}", after
        if state.control != (epoch, "T") or all(shard.fence == (epoch, "T") for shard in state.shards):
            yield f"controller {who} is done", self._does(state, who, "idle", epoch)

    def _abort(self, state: State, who: int, epoch: int) -> Iterator[Step]:
        if self._is_at(state, (epoch, "K")):
            raised = state._replace(control=(epoch + 2, "K"))
            yield f"controller {who} aborts: control", self._does(raised, who, "raise", epoch + 2)
        else:
            yield f"controller {who} lost the race", self._does(state, who, "idle", epoch)

    def _raise(self, state: State, who: int, epoch: int) -> Iterator[Step]:
        """A shard below control's epoch is raised to it, open."""
        for number, shard in enumerate(state.shards):
            if shard.fence[0] < epoch or self.naive is Naive.NO_COMPARE:
                raised = shard._replace(fence=(epoch, "K"))
                yield f"controller {who} opens the store in shard {number}", self._shard(state, number, raised)
        if state.control != (epoch, "K") or all(shard.fence[0] >= epoch for shard in state.shards):
            yield f"controller {who} is done", self._does(state, who, "idle", epoch)

    def _back(self, state: State, who: int, epoch: int) -> Iterator[Step]:
        if self.naive is Naive.TABLES_NOT_SEALED:
            yield f"controller {who} seals nothing", self._does(state, who, "reopen", epoch + 1)
        elif state.control == (epoch, "T"):
            sealed = state._replace(control=(epoch + 1, "S"))
            yield f"controller {who} seals the tables", self._does(sealed, who, "reopen", epoch + 1)
        else:
            yield f"controller {who} lost the race", self._does(state, who, "idle", epoch)

    def _reopen(self, state: State, who: int, epoch: int) -> Iterator[Step]:
        """The store opens shard by shard; both cannot be open, as the tables are sealed throughout."""
        unsealed = self.naive is Naive.TABLES_NOT_SEALED
        if not any(shard.owed for shard in state.shards) and (state.control == (epoch, "S") or unsealed):
            for number in BOTH:
                after = self._swap(state, number, (epoch - 1, "T"), (epoch, "K"))
                if after:
                    yield f"controller {who} opens the store in shard {number}", after
        mine = state.control in ((epoch, "S"), (epoch - 1, "T"))
        if mine and all(shard.fence == (epoch, "K") for shard in state.shards):
            accepts = state._replace(control=(epoch, "K"), went=2)
            yield f"controller {who}: tables take mirrors", self._does(accepts, who, "idle", epoch)
        if state.control[0] > epoch or state.control == (epoch, "K"):
            yield f"controller {who} is done", self._does(state, who, "idle", epoch)

    def check_state(self, state: State) -> None:
        """SINGLE and AUTH, in each shard."""
        tables_open = state.control[1] == "T"
        for number, shard in enumerate(state.shards):
            store_open = shard.fence[1] == "K"
            need("SINGLE", not (store_open and tables_open), f"shard {number} and the tables are open")
            need(
                "AUTH",
                not store_open or shard.value == shard.accepted,
                f"shard {number} is open but holds {shard.value}, last accepted is {shard.accepted}",
            )
            need(
                "AUTH",
                not tables_open or shard.row == shard.accepted,
                f"the tables are open but hold {shard.row} of shard {number}, last accepted is {shard.accepted}",
            )

    def check_step(self, before: State, after: State) -> None:
        """FENCE: control's epoch does not go back; only a controller that does not compare does that."""
        if self.naive is not Naive.NO_COMPARE:
            need("FENCE", after.control[0] >= before.control[0], "control's epoch goes back")

    def check_end(self, state: State) -> None:
        """QUIESCE: both flips are done, all writes accepted, nothing is marked or owed."""
        need("QUIESCE", state.went == 2, "a flip is never done")
        idle = not any(shard.marked or shard.owed for shard in state.shards) and not any(state.left)
        need("QUIESCE", idle, "not converged")
