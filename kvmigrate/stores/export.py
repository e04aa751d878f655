"""Files as a source: an export, lines of documents, or one JSON file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar, cast

from kvmigrate.errors import ConfigError, SourceError
from kvmigrate.model import Item, ItemKind
from kvmigrate.stores.address import field_items, field_prefix, readable_address, split_address
from kvmigrate.stores.base import Page, ScanRequest
from kvmigrate.stores.document_key import DocumentKey
from kvmigrate.stores.export_file import Elements, Layout, Lines, Record, WholeFile, document
from kvmigrate.stores.export_format import read_line
from kvmigrate.stores.position import number
from kvmigrate.stores.url import SourceURL

T = TypeVar("T")

_DOCUMENTS = "file:///customers.ndjson?key=customers:{_id}"


class _Index(NamedTuple):
    positions: dict[str, int]
    hashes: frozenset[str]
    unreadable: Sequence[bytes]


class ExportSource:
    """A file of items.

    - ``x.ndjson``: an export, as `export_format` describes it.
    - ``x.ndjson?key=a:{id}``: one document a line; its key is made of its members.
    - ``x.json?key=a:all``: the whole file is the value of one item.
    - ``x.json?key=a:{id}&each=1``: each element of the array is an item.

    The positions of all keys are kept in memory, some 150 bytes and the key for
    each, so that a key that occurs twice is an error and not a lost item.
    """

    def __init__(self, url: SourceURL) -> None:
        """Find the file and choose its layout.

        Raises:
            ConfigError: no such file, a compressed file, or options that do not fit it.
        """
        url.allow_options(("key", "each"))
        self._url = url
        self._path = url.file()
        self._expires = False
        self._layout = self._chosen_layout()
        self._known: _Index | None = None

    @property
    def name(self) -> str:
        """The URL."""
        return self._url.name

    def __repr__(self) -> str:
        return f"ExportSource({self.name!r})"

    def count(self) -> int | None:
        """Return the number of lines or elements."""
        return self._safely(self._layout.count)

    def has_ttl(self) -> bool:
        """Return whether the text ``expires_at_ms`` stands in an export; other files have no expiries."""
        layout = self._layout
        return self._expires and isinstance(layout, Lines) and self._safely(lambda: layout.holds(b'"expires_at_ms"'))

    def scan(self, request: ScanRequest, *, after: str = "") -> Iterator[Page]:
        """Yield the file's pages in the file's order; a position is a byte offset or an index."""
        seen: dict[str, int] = {}
        records = self._records(number(after or "0"))
        while chunk := list(islice(records, request.page_keys)):
            for record in chunk:
                self._remember(record, seen)
            yield _page((record.entry for record in chunk), request, str(chunk[-1].following))

    def scan_sorted(self, request: ScanRequest) -> Iterator[Page]:
        """Yield every key in byte order, by the index of all positions."""
        index = self._index()
        if index.unreadable:
            yield Page((), (), index.unreadable)

        def place(key: str) -> bytes:
            explodes = key in index.hashes and request.explodes(key)
            return field_prefix(key.encode()) if explodes else key.encode()

        keys = iter(sorted(index.positions, key=place))
        while chunk := list(islice(keys, request.page_keys)):
            yield _page((self._read(index.positions[key]) for key in chunk), request, "")

    def get_many(self, keys: Sequence[str]) -> list[Item | None]:
        """Return the items; the first call reads the file through to find all keys."""
        return [self._get(key) for key in keys]

    def change_mark(self) -> str | None:
        """Return ``None``: a file's time of change is too coarse to be certain."""
        return None

    def incarnation(self) -> str | None:
        """Return what tells this file, as it is now, from others: a position is a place in it."""
        found = self._path.stat()
        return f"{found.st_dev}-{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"

    def close(self) -> None:
        """Close the file."""
        self._layout.close()

    def _chosen_layout(self) -> Layout:
        key, each = self._url.options.get("key"), self._url.options.get("each", "0")
        if self._path.suffix in {".gz", ".zst", ".bz2", ".xz", ".zip"}:
            raise ConfigError(f"{self.name}: compressed files are not read", hint=f"unpack {self._path} first")
        whole = self._path.suffix == ".json"
        if each not in {"0", "1"} or (each == "1" and not whole):
            raise ConfigError(f"{self.name}: each=1 is for a .json file that holds an array", hint=_DOCUMENTS)
        if key is None and whole:
            hint = "add ?key=recipes:all for one item, or ?each=1&key=recipe:{id} for the elements of an array"
            raise ConfigError(f"{self.name}: a .json file needs a key", hint=hint)
        if key is None:
            self._expires = True
            hint = f"an export has a key in each line; for plain documents name their key: {_DOCUMENTS}"
            return Lines(self._path, _exported, hint=hint)
        template = self._template(key, many=not whole or each == "1")
        if each == "1":
            return Elements(self._path, template)
        if whole:
            return WholeFile(self._path, template)
        hint = "each line needs the members that the key template names"
        return Lines(self._path, lambda line: document(template, line), hint=hint)

    def _template(self, key: str, *, many: bool) -> DocumentKey:
        try:
            template = DocumentKey(key)
        except ValueError as exc:
            raise ConfigError(f"{self.name}: {exc}", hint=_DOCUMENTS) from None
        if many and template.is_constant:
            raise ConfigError(f"{self.name}: the key {key!r} would be the same for all documents", hint=_DOCUMENTS)
        return template

    def _records(self, start: int) -> Iterator[Record]:
        records = self._layout.records(start)
        while (record := self._safely(lambda: next(records, None))) is not None:
            yield record

    def _read(self, position: int) -> Item | bytes:
        return self._safely(lambda: self._layout.read(position))

    def _safely(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except OSError as exc:
            raise SourceError(f"{self.name}: {exc.strerror or exc}", hint="can the file be read?") from exc

    def _remember(self, record: Record, seen: dict[str, int]) -> None:
        if isinstance(record.entry, bytes):
            return
        key = record.entry.key
        first = seen.setdefault(key, record.position)
        if first != record.position:
            raise SourceError(
                f"{self._layout.place(record.position)}: the key {key!r} stands at {self._layout.place(first)} already",
                hint="a key may stand once; for documents choose members that tell them apart",
                key=key,
            )

    def _index(self) -> _Index:
        if self._known is None:
            positions: dict[str, int] = {}
            hashes: set[str] = set()
            unreadable: list[bytes] = []
            for record in self._records(0):
                self._remember(record, positions)
                if isinstance(record.entry, bytes):
                    unreadable.append(record.entry)
                elif record.entry.kind is ItemKind.HASH:
                    hashes.add(record.entry.key)
            self._known = _Index(positions, frozenset(hashes), unreadable)
        return self._known

    def _get(self, address: str) -> Item | None:
        positions = self._index().positions
        if address in positions:
            return cast("Item", self._read(positions[address]))
        key, field = split_address(address)
        if field is None or key not in self._index().hashes:
            return None
        item = cast("Item", self._read(positions[key]))
        value = cast("Mapping[bytes, bytes]", item.value).get(field.encode())
        return None if value is None else Item(address, value, expires_at_ms=item.expires_at_ms)


def _exported(line: bytes) -> Item | bytes:
    entry = read_line(line)
    if isinstance(entry, Item) and readable_address(entry.key.encode()) is None:
        return entry.key.encode()
    return entry


def _page(entries: Iterable[Item | bytes], request: ScanRequest, position: str) -> Page:
    items: list[Item] = []
    unreadable: list[bytes] = []
    for entry in entries:
        if isinstance(entry, bytes):
            unreadable.append(entry)
            continue
        item = entry if request.ttl else entry._replace(expires_at_ms=None)
        if item.kind is ItemKind.HASH and request.explodes(item.key):
            fields, odd = field_items(item.key, cast("Mapping[bytes, bytes]", item.value), item.expires_at_ms)
            items += fields
            unreadable += odd
        elif request.wants(item.key) or request.explodes(item.key):
            items.append(item)
        else:
            items.append(Item(item.key, None, ItemKind.UNREAD))
    return Page(items, (), unreadable, position)
