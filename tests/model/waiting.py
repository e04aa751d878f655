"""Waiting, level-triggered: an item that is refused because of another one waits until a poll finds the tables changed.

An apply is two steps: begin (locks, snapshot, plan) and commit, where the database checks constraints against what
others committed meanwhile. Nobody wakes a waiter: no lock per value, no `due` set by whoever changes a value. The relay
runs `mark_due` again and again while anything waits. It is one statement, so one step here; what it would find in an
older snapshot it finds the next time. A poll that finds nothing changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial

from tests.model.explorer import need
from tests.model.waiting_state import (
    GIVES,
    OK,
    QUARANTINED,
    WAITING,
    Item,
    Items,
    Kept,
    Naive,
    Observed,
    Setup,
    State,
    Transaction,
    is_free,
    is_sound,
    mark_due,
    obstacle,
    plan,
    plan_batch,
    possible,
    put,
    rows_of,
)

Step = tuple[str, State]


class Waiting:
    """The model; see `tests.model.explorer.Model`."""

    def __init__(self, setup: Setup, naive: Naive | None = None) -> None:
        self.setup = replace(setup, naive=naive)
        self.naive = naive
        self._plan = cache(partial(plan, self.setup))
        self._plan_batch = cache(partial(plan_batch, self.setup))

    def start(self) -> State:
        """Return the first state: the tables hold what the store held before."""
        before = self.setup.before
        return State(tuple(map(Kept, before)), tuple(Item(row, 0, OK, row) for row in before), (), (), (), 1)

    def steps(self, state: State) -> Iterator[Step]:
        """Yield what writers, mirrors, the applier, transactions and the poll can do next.

        Nothing looks at a mirror before it arrives: so mirrors are lost only when nothing else can happen.
        """
        is_quiet = True
        for step in self._moves(state):
            is_quiet = is_quiet and step[1] == state
            yield step
        if state.net:
            yield from self._mirrors(state)
            if is_quiet:
                for message in dict.fromkeys(state.net):
                    yield "mirror is lost", self._without(state, message)

    def _moves(self, state: State) -> Iterator[Step]:
        yield from self._writers(state)
        yield from self._observations(state)
        if state.applier and not any(each.who == "applier" for each in state.transactions):
            yield from self._begin(state, "applier", state.applier)
        for transaction in state.transactions:
            yield self._end(state, transaction)
        yield from self._poll(state)

    @staticmethod
    def _without(state: State, message: tuple[int, str, int]) -> State:
        place = state.net.index(message)
        return state._replace(net=state.net[:place] + state.net[place + 1 :])

    def _writers(self, state: State) -> Iterator[Step]:
        for key, (kept, program) in enumerate(zip(state.store, self.setup.programs, strict=True)):
            if kept.n < len(program):
                value, n = program[kept.n], kept.n + 1
                store = (*state.store[:key], Kept(value, n, n), *state.store[key + 1 :])
                net = tuple(sorted((*state.net, (key, value, n)))) if self.setup.mirrors else ()
                yield f"write {value or 'nothing'} to item {key}", state._replace(store=store, net=net)

    def _observations(self, state: State) -> Iterator[Step]:
        """The applier takes what is marked or due: one item, or all of it in one step."""
        if state.applier:
            return
        found = tuple(Observed(key, *kept) for key, kept in enumerate(state.store) if kept.mark or state.items[key].due)
        if found and self.setup.batches:
            yield "applier observes all", state._replace(applier=found)
        else:
            for each in found:
                yield f"applier observes item {each.key}", state._replace(applier=(each,))

    def _mirrors(self, state: State) -> Iterator[Step]:
        for message in dict.fromkeys(state.net):
            key, value, n = message
            taken = self._without(state, message)
            observed = Observed(key, value, n, n)
            if self.setup.plain_mirror and not self._is_plain(state.items, observed):
                yield from self._leave(taken, observed)
            else:
                yield from self._begin(taken, "mirror", (observed,))

    def _is_plain(self, items: Items, observed: Observed) -> bool:
        """Whether applying it touches this item alone, and leaves it as it should be."""
        item = items[observed.key]
        planned = self._plan(items, observed.key, observed.value, observed.n)
        if item.status != OK or item.waits or planned is None:
            return False
        after = planned[observed.key]
        return put(items, observed.key, after) == planned and after.status == OK and not after.waits

    def _leave(self, state: State, observed: Observed) -> Iterator[Step]:
        """The inline mirror writes nothing of what is odd, and confirms nothing: the mark stays for the applier."""
        key = observed.key
        if self.naive is Naive.INLINE_ACKS_WHAT_IT_LEFT:
            yield "mirror leaves an odd item, acks", self._acked(state, (observed,))
        if self.naive is Naive.INLINE_SKIPS_WHAT_IS_REFUSED and state.items[key].n < observed.n:
            skipped = state.items[key]._replace(n=observed.n, content=observed.value)
            written = state._replace(items=put(state.items, key, skipped))
            yield "mirror skips the rows that are refused, acks", self._acked(written, (observed,))

    def _begin(self, state: State, who: str, batch: tuple[Observed, ...]) -> Iterator[Step]:
        first = batch[0]
        planned = (
            self._plan_batch(state.items, batch)
            if self.setup.batches and who == "applier"
            else self._plan(state.items, first.key, first.value, first.n)
        )
        if planned is None:
            return
        changed = (key for key, item in enumerate(planned) if item != state.items[key])
        locks = tuple(sorted({each.key for each in batch}.union(changed)))
        if not any(set(locks).intersection(each.locks) for each in state.transactions):
            transaction = Transaction(who, batch, state.items, planned, locks)
            yield f"{who} begins", state._replace(transactions=(*state.transactions, transaction))

    def _end(self, state: State, transaction: Transaction) -> Step:
        """Commit, unless a constraint does not hold with what others committed meanwhile: then all of it is retried."""
        rest = tuple(each for each in state.transactions if each != transaction)
        applier = () if transaction.who == "applier" else state.applier
        ended = state._replace(transactions=rest, applier=applier)
        items = tuple(
            transaction.plan[key] if key in transaction.locks else item for key, item in enumerate(state.items)
        )
        if not is_sound(rows_of(items)):
            return f"{transaction.who} is refused at its commit", ended
        if self.naive is Naive.POLL_OLD_SNAPSHOT:
            items = self._due_by(transaction.base, items)
        elif self.naive is Naive.PROVIDER_WAKES:
            items = self._woken(transaction, items)
        return f"{transaction.who} commits, acks", self._acked(ended._replace(items=items), transaction.batch)

    @staticmethod
    def _acked(state: State, batch: tuple[Observed, ...]) -> State:
        store = list(state.store)
        for each in batch:
            if store[each.key].mark == each.mark:
                store[each.key] = store[each.key]._replace(mark=0)
        return state._replace(store=tuple(store))

    def _poll(self, state: State) -> Iterator[Step]:
        """`mark_due`: it skips items that a transaction has locked, and comes back to them."""
        if self.naive in (Naive.NO_POLL, Naive.POLL_OLD_SNAPSHOT, Naive.PROVIDER_WAKES):
            return
        once = self.naive is Naive.POLL_ONCE
        if once and not (state.polls and any(item.waits for item in state.items)):
            return
        locked = {key for each in state.transactions for key in each.locks}
        marked = mark_due(self.setup, state.items)
        items = tuple(item if key in locked else marked[key] for key, item in enumerate(state.items))
        yield "poll", state._replace(items=items, polls=0 if once else state.polls)

    def _due_by(self, snapshot: Items, items: Items) -> Items:
        """Naive: each apply polls once, in the snapshot that it began with."""
        for key, item in enumerate(snapshot):
            if item.waits and items[key].waits and is_free(self.setup, snapshot, key):
                items = put(items, key, items[key]._replace(due=True))
        return items

    def _woken(self, transaction: Transaction, items: Items) -> Items:
        """Naive: who changes a value wakes those whom it sees waiting for it; nobody looks again."""
        changed = {
            GIVES.get(row, row)
            for key in transaction.locks
            for row in (transaction.base[key].row, transaction.plan[key].row)
            if transaction.base[key].row != transaction.plan[key].row
        }
        for key, item in enumerate(transaction.base):
            if item.waits in changed and item.waits and items[key].waits:
                items = put(items, key, items[key]._replace(due=True))
        return items

    def check_state(self, state: State) -> None:
        """LEDGER: an item that is fine at a version has the row of that version."""
        for key, item in enumerate(state.items):
            if item.status == OK:
                value = self.setup.programs[key][item.n - 1] if item.n else self.setup.before[key]
                need(
                    "LEDGER",
                    item.row == value or (value, item.row) == ("r", "r0"),
                    f"item {key} is fine at {item.n}, but its row is {item.row!r}",
                )

    def check_step(self, before: State, after: State) -> None:
        """MONO: no item's version goes back."""
        need("MONO", all(a.n >= b.n for a, b in zip(after.items, before.items, strict=True)), "a version goes back")

    def check_end(self, state: State) -> None:
        """QUIESCE: no mark is left; an item has its row, or waits for what neither tables nor store can have."""
        rows, values = rows_of(state.items), possible(tuple(kept.value for kept in state.store))
        for key, (kept, item) in enumerate(zip(state.store, state.items, strict=True)):
            need("QUIESCE", kept.n == len(self.setup.programs[key]) and not kept.mark, f"mark of item {key} left")
            refused = obstacle(key, kept.value, rows)
            quarantined = item.status == QUARANTINED
            need("QUIESCE", refused or not quarantined, f"item {key} is quarantined, but nothing is wrong with it")
            if item.status == OK:
                fine = item.row == kept.value or (refused and item.row == "r0")
                need("QUIESCE", fine, f"row {key} is {item.row!r}, the store has {kept.value!r}")
            if item.status == WAITING:
                really = refused and obstacle(key, kept.value, values)
                need("QUIESCE", really and item.n == kept.n, f"item {key} waits for nothing ({item.waits})")
