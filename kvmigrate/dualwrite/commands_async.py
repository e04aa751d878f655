"""Commands of an application's own client: which touch mapped keys, and who does them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from kvmigrate.dualwrite.command_use import CommandUse
from kvmigrate.dualwrite.redis_commands import COMMANDS, UNKNOWN, Command, Form, Kind, fields_changed, waited
from kvmigrate.dualwrite.request_reads import READS, count_read
from kvmigrate.dualwrite.served_async import AsyncServed
from kvmigrate.dualwrite.served_json import makes_document
from kvmigrate.dualwrite.store_async import AsyncStore
from kvmigrate.errors import CommandRefusedError, NotAfterCutoverError
from kvmigrate.model import ADDRESS_SEPARATOR, MAX_KEY_BYTES, Authority, Fence
from kvmigrate.stores.client_base_async import AsyncSend
from kvmigrate.stores.client_plan import Encoder, Plan
from kvmigrate.transform.keys.route import RouteKind
from kvmigrate.transform.lens import Lens
from kvmigrate.transform.mapping import Decode

_MOST_ARGUMENTS = 7000
"""Scripts cannot hand on more."""

_MOST_NAMES = 10_000

_STORE = Authority.STORE
_SCRIPT, _REFUSED = Form.SCRIPT, Form.REFUSED
_READ, _FREE, _UNKNOWN = Kind.READ, Kind.FREE, Kind.UNKNOWN
_IN_PARTS = frozenset({Decode.LIST, Decode.SET})
_AFTER = "write it through `Migration.store`, or take the command out before the authority moves"


class AsyncCommands:
    """Implements `kvmigrate.stores.client_base_async.AsyncCommands`."""

    def __init__(self, lens: Lens, store: AsyncStore, use: CommandUse) -> None:
        """Route keys by *lens*, and act through *store*; *use* counts what will not work after the cut-over."""
        self._lens, self._store, self._use = lens, store, use
        self._served = AsyncServed(store)
        self._has_exploding = lens.has_exploding
        self._has_parts = self._has_exploding or any(each.decode in _IN_PARTS for each in lens.mapping.entities)
        # Most programs use the same keys again and again. Replaced whole, so that threads need no lock.
        self._names: dict[str, str | None] = {}

    @property
    def surely_in_store(self) -> bool:
        """As the seam."""
        return self._store.surely_in_store

    def plan(self, args: Sequence[Any], encoder: Encoder, *, is_piped: bool = False) -> Plan | None:
        """As the seam."""
        command = COMMANDS.get(args[0])
        if command is None:
            args, command = _worded(args)
        keys: Sequence[str]
        mapped: Sequence[str]
        is_single = command.is_single and len(args) > 1
        if is_single:
            text, names = args[1], self._names
            # Every command passes here, and most name a key that was named before.
            if type(text) is str and text in names and encoder.keeps_ascii and text.isascii():
                name = names[text]
            else:
                text = _text(text, encoder)
                name = None if text is None else self._name_of(text)
            if name is None:
                return None
            keys = mapped = (text,)
        elif command.kind is _FREE:
            return None
        else:
            keys, mapped = self._several(command, args, encoder)
            if not mapped:
                return None
        is_read = command.kind is _READ
        # The tables answer for no other keys beside their own.
        is_mixed = len(mapped) != len(keys)
        is_unserved = not command.served or is_mixed or (command.name == "JSON.SET" and makes_document(args))
        if is_unserved or (self._has_parts and any(map(self._is_in_parts, mapped))):
            self._use.count(command.name or str(args[0])[:50], [self._name_of(text) or "" for text in mapped])
        if is_read and not is_piped:
            if READS.get() is not None:
                count_read(mapped[0], self._lens)
            if self._store.surely_in_store:
                return None
        if command.form is _REFUSED:
            self._refuse(command, args, mapped[0])
        encode = encoder.encode
        # Names of commands are ASCII, whatever the client's encoding.
        raw = [args[0].encode(), *map(encode, args[1:])]
        is_whole = is_single and not self._has_exploding
        marks = () if is_read else mapped if is_whole else self._marks(command, raw)
        is_for_scripts = command.form is _SCRIPT
        in_script = is_for_scripts and len(raw) <= _MOST_ARGUMENTS
        waits_s = None if is_for_scripts else waited(command.name, raw)
        return Plan(command.name, raw, keys, mapped, marks, is_read, in_script, command.native, command.frees, waits_s)

    def _several(self, command: Command, args: Sequence[Any], encoder: Encoder) -> tuple[Sequence[str], Sequence[str]]:
        """Return the keys, and those of them that the mapping names."""
        if not command.keys:
            raise CommandRefusedError(f"{command.name} is refused: {command.why}", command=command.name)
        places = list(command.key_places(args))
        if command.kind is _UNKNOWN:
            # It may name keys anywhere, and most of its arguments are none.
            places = [place for place in places if _may_be(args[place])]
        keys, mapped = [], []
        for place in places:
            text = _text(args[place], encoder)
            keys.append(_address(encoder.encode(args[place])) if text is None else text)
            if text is not None and self._name_of(text) is not None:
                mapped.append(text)
        return keys, mapped

    async def reads_tables(self, plan: Plan) -> bool:
        """As the seam."""
        return await self._store.reads_tables(plan.mapped[0])

    async def read(self, plan: Plan) -> Any:
        """As the seam."""
        if not COMMANDS[plan.name].served:
            _refuse_after(plan)
        return await self._served.answer(plan)

    async def write(self, plan: Plan, send: AsyncSend) -> Any:
        """As the seam."""

        async def act(fence: Fence) -> Any:
            """Send it to the store, or answer from the tables."""
            if fence.authority is _STORE:
                return await send(fence)
            if not COMMANDS[plan.name].served:
                _refuse_after(plan)
            return await self._served.answer(plan)

        return await self._store.way().follow(plan.mapped, act)

    async def together(self, plans: Sequence[Plan], send: AsyncSend) -> Any:
        """As the seam."""

        async def act(fence: Fence) -> Any:
            """Send them to the store, and nowhere else."""
            if fence.authority is not _STORE:
                _refuse_together(plans)
            return await send(fence)

        return await self._store.way().follow([plan.mapped[0] for plan in plans], act)

    async def known(self, plans: Sequence[Plan]) -> Fence | None:
        """As the seam."""

        async def act(fence: Fence) -> Fence | None:
            """Say it where the store leads."""
            return fence if fence.authority is _STORE else None

        return await self._store.way().follow([plan.mapped[0] for plan in plans], act)

    def note_transaction(self, plans: Sequence[Plan]) -> None:
        """As the seam."""
        self._use.count("MULTI", dict.fromkeys(self._name_of(key) or "" for plan in plans for key in plan.mapped))

    def forget(self) -> None:
        """As the seam."""
        self._store.way().view.forget()

    def _name_of(self, key: str) -> str | None:
        """Return the entity of a key, or the key where each field is an item; ``None`` where it is not mapped."""
        names = self._names
        if key in names:
            return names[key]
        # The usual key first: most programs name new ones all the time.
        entity = self._lens.entity_of(key)
        if entity is None:
            route = self._lens.route(key)
            entity = route.entity if route.kind is RouteKind.ENTITY else None
        name = None if entity is None else entity.name
        if self._has_exploding and self._lens.explodes(key):
            name = key
        if len(names) >= _MOST_NAMES:
            self._names = names = {}
        names[key] = name
        return name

    def _is_in_parts(self, key: str) -> bool:
        """Whether the store alone writes what stands there."""
        entity = self._lens.route(key).entity
        return self._lens.explodes(key) or (entity is not None and entity.decode in _IN_PARTS)

    def _marks(self, command: Command, raw: Sequence[bytes]) -> Sequence[str]:
        marks: dict[str, None] = {}
        for place in command.changed_places(raw):
            key = _text(raw[place], None)
            if key is None or self._name_of(key) is None:
                continue
            if not self._lens.explodes(key):
                marks[key] = None
                continue
            fields = fields_changed(command.name, raw)
            if fields is None:
                raise CommandRefusedError(
                    f"{command.name} of {key!r} is refused: each field of this hash is an item of its own, and the "
                    "command does not name the fields that it changes",
                    hint="name them: HDEL, HSET",
                    command=command.name,
                    key=key,
                )
            marks.update((key + ADDRESS_SEPARATOR + _address(field), None) for field in fields)
        return tuple(marks)

    def _refuse(self, command: Command, args: Sequence[Any], key: str) -> NoReturn:
        name = command.name or str(args[0])[:50]
        raise CommandRefusedError(
            f"{name} of {key!r} is refused: {command.why}",
            hint="nothing was sent; other keys than those of the mapping may be used as ever",
            command=name,
            key=key,
        )


def _worded(args: Sequence[Any]) -> tuple[Sequence[Any], Command]:
    """Return a command whose name is not written as usual as the words that a client sends, and what it is."""
    name = args[0]
    text = name if isinstance(name, str) else bytes(name).decode("latin-1") if isinstance(name, bytes) else ""
    words = text.upper().split()
    if not words:
        return args, UNKNOWN
    command = COMMANDS.get(words[0], UNKNOWN)
    return [words[0], *(each.encode() for each in text.split()[1:]), *args[1:]], command


def _may_be(argument: Any) -> bool:
    return isinstance(argument, str | bytes) and len(argument) <= MAX_KEY_BYTES


def _text(key: Any, encoder: Encoder | None) -> str | None:
    """Return a key as the mapping sees it; ``None`` where it can be no key of a mapping."""
    if not (isinstance(key, str) and key.isascii() and (encoder is None or encoder.keeps_ascii)):
        raw = key if encoder is None else encoder.encode(key)
        try:
            key = raw.decode()
        except UnicodeDecodeError:
            return None
        if len(raw) > MAX_KEY_BYTES:
            return None
    elif len(key) > MAX_KEY_BYTES:
        return None
    return None if ADDRESS_SEPARATOR in key or "\0" in key else key


def _address(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _refuse_after(plan: Plan) -> NoReturn:
    raise NotAfterCutoverError(
        f"{plan.name} of {plan.mapped[0]!r} is refused: the tables are the authority, and it works on the store alone",
        hint=_AFTER,
        command=plan.name,
        key=plan.mapped[0],
    )


def _refuse_together(plans: Sequence[Plan]) -> NoReturn:
    if len(plans) == 1 and not plans[0].in_script:
        _refuse_after(plans[0])
    names = ", ".join(dict.fromkeys(plan.name for plan in plans))
    raise NotAfterCutoverError(
        f"MULTI with {names} of {plans[0].mapped[0]!r} is refused: the tables are the authority, and each of "
        "their items is written by itself",
        hint=_AFTER,
        command="MULTI",
        key=plans[0].mapped[0],
    )
