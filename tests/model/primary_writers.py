"""Applications that write with possibly stale flags, and the messages that their writes send to the other store."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.explorer import BrokenError
from tests.model.primary_state import (
    STORE,
    TABLES,
    Fence,
    Message,
    Naive,
    Setup,
    State,
    Step,
    Writer,
    apply,
    apply_reverse,
    next_n,
)

SKEW = 5
"""How far the first writer's own clock is ahead; only the naive variant that goes by it notices."""


def steps(setup: Setup, state: State) -> Iterator[Step]:
    """Yield what any writer can do: read its flags again, or write where they say."""
    for number, writer in enumerate(state.writers):
        yield from _writer_steps(setup, state, number, writer)


def _writer_steps(setup: Setup, state: State, number: int, writer: Writer) -> Iterator[Step]:
    who = f"writer {number + 1}"
    if writer.phase == "logging":
        yield from _mark_apart(state, number)
    elif writer.phase == "checked":
        yield f"{who} writes after its check", _write(setup, state, number)
    elif writer.done < len(setup.programs[number]):
        believes = (writer.epoch, writer.authority)
        for fence in (state.fence, state.control):
            # Flags only go forward; when they are read is not known.
            if fence != believes and fence[0] >= writer.epoch:
                again = writer._replace(epoch=fence[0], authority=fence[1])
                yield f"{who} reads its flags", _with(state, number, again)
        if _is_open(setup, state, believes):
            if setup.naive is Naive.FENCE_THEN_WRITE:
                yield f"{who} finds the fence open", _with(state, number, writer._replace(phase="checked"))
            else:
                yield f"{who} writes", _write(setup, state, number)


def _is_open(setup: Setup, state: State, believes: Fence) -> bool:
    if believes[1] not in (STORE, TABLES):
        return False
    if setup.naive in (Naive.NO_FENCE, Naive.FLAGS_ONLY):
        return True
    return believes == (state.fence if believes[1] == STORE else state.control)


def _with(state: State, number: int, writer: Writer) -> State:
    return state._replace(writers=(*state.writers[:number], writer, *state.writers[number + 1 :]))


def _write(setup: Setup, state: State, number: int) -> State:
    return (_write_store if state.writers[number].authority == STORE else _write_tables)(setup, state, number)


def _epoch(setup: Setup, writer: Writer, fence: Fence) -> int:
    return writer.epoch if setup.naive in (Naive.NO_FENCE, Naive.FLAGS_ONLY) else fence[0]


def _write_store(setup: Setup, state: State, number: int) -> State:
    """Fence, value, version and mark in one script; then the mirror is sent to the tables."""
    writer = state.writers[number]
    op = (number + 1) * 10 + writer.done
    clock = (_epoch(setup, writer, state.fence), state.clock[1] + 1)
    version = clock
    if setup.naive is Naive.WRITER_CLOCKS and number == 0:
        version = (clock[0], clock[1] + SKEW)
    written = state._replace(value=op, history=(*state.history, op), clock=clock)
    if setup.naive is Naive.MARK_AFTER_WRITE:
        return _with(written, number, writer._replace(phase="logging", op=op, version=version))
    marked = written._replace(
        mark=state.mark if setup.naive is Naive.NO_MARK else version,
        net=_sent(state.net, Message("mirror", op, version)),
    )
    return _with(marked, number, writer._replace(phase="ready", done=writer.done + 1))


def _mark_apart(state: State, number: int) -> Iterator[Step]:
    """Naive: the mark is a round trip of its own; a writer that dies before it leaves none."""
    writer = state.writers[number]
    done = Writer("ready", writer.done + 1, writer.epoch, writer.authority)
    marked = state._replace(
        mark=max(state.mark, writer.version), net=_sent(state.net, Message("mirror", writer.op, writer.version))
    )
    yield f"writer {number + 1} marks", _with(marked, number, done)
    if state.budget.crashes:
        died = state._replace(budget=state.budget._replace(crashes=state.budget.crashes - 1))
        yield f"writer {number + 1} dies before its mark", _with(died, number, done)


def _write_tables(setup: Setup, state: State, number: int) -> State:
    """Fence, rows, version and what the store is owed in one transaction; then the reverse mirror is sent."""
    writer = state.writers[number]
    op = (number + 1) * 10 + writer.done
    version = (_epoch(setup, writer, state.control), next_n(state.ledger))
    written = state._replace(
        parent=op,
        child=op,
        ledger=version,
        owed=True,
        history=(*state.history, op),
        net=_sent(state.net, Message("reverse", op, version)),
    )
    return _with(written, number, writer._replace(phase="ready", done=writer.done + 1))


def _sent(net: tuple[Message, ...], message: Message) -> tuple[Message, ...]:
    return tuple(sorted((*net, message)))


def _without(net: tuple[Message, ...], message: Message) -> tuple[Message, ...]:
    place = net.index(message)
    return net[:place] + net[place + 1 :]


def deliveries(setup: Setup, state: State) -> Iterator[Step]:
    """Yield every message that may arrive now, once or twice."""
    for message in dict.fromkeys(state.net):
        taken = state._replace(net=_without(state.net, message))
        yield f"{message.what} arrives", _deliver(setup, taken, message)
        if state.budget.duplicates and (message.what != "child" and setup.naive is not Naive.ROWS_ONE_BY_ONE):
            doubled = state._replace(budget=state.budget._replace(duplicates=state.budget.duplicates - 1))
            yield f"{message.what} arrives, and will again", _deliver(setup, doubled, message)


def losses(state: State) -> Iterator[Step]:
    """Yield every message lost.

    Nothing looks at a message before it arrives. So one that is lost early is as one that is still under way at the
    end; the model loses messages only when nothing else can happen, and reaches a third less states.
    """
    for message in dict.fromkeys(state.net):
        yield f"{message.what} is lost", state._replace(net=_without(state.net, message))


def _deliver(setup: Setup, state: State, message: Message) -> State:
    if message.what == "reverse":
        return apply_reverse(setup, state, message.op, message.version)
    if message.what == "child":
        return state._replace(child=message.op)
    after = apply(setup, state, message.op, message.version) or state
    if setup.naive is Naive.ROWS_ONE_BY_ONE:
        child = Message("child", message.op, message.version)
        return after._replace(child=state.child, net=_sent(after.net, child))
    _check_confirmed(setup, after, message)
    return after


def _check_confirmed(setup: Setup, state: State, message: Message) -> None:
    """ACK: a mirror that was not fenced off is confirmed, so the tables are at that write or past it."""
    if not setup.keeps_accepted or setup.naive in (Naive.NO_GUARD, Naive.WRITER_CLOCKS):
        return
    if state.control != (message.version[0], STORE):
        return
    if state.history.index(state.parent) < state.history.index(message.op):
        raise BrokenError("ACK", f"mirror of {message.op} is confirmed, but the tables hold {state.parent}")
