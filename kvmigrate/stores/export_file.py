"""How items lie in a file: one a line, elements of an array, or the whole file as one."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import msgspec

from kvmigrate.errors import SourceError
from kvmigrate.model import Item
from kvmigrate.stores.address import readable_address
from kvmigrate.stores.document_key import DocumentKey

_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Record(NamedTuple):
    """One item and where it lies; a key that no item can have stands as bytes.

    Attributes:
        following: The position behind it, from which a scan goes on.
    """

    position: int
    following: int
    entry: Item | bytes


class Layout(Protocol):
    """Where the items of a file lie. A position is a number only the layout understands."""

    def records(self, start: int) -> Iterator[Record]:
        """Yield the records from position *start* on."""
        ...

    def read(self, position: int) -> Item | bytes:
        """Return what lies at *position*."""
        ...

    def place(self, position: int) -> str:
        """Return *position* for people: ``file:line``."""
        ...

    def count(self) -> int:
        """Return about how many records there are."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def document(key: DocumentKey, raw: bytes) -> Item | bytes:
    """Return a document as the item under its rendered key."""
    rendered = key.render(raw)
    address = readable_address(rendered.encode())
    return rendered.encode() if address is None else Item(address, raw)


class Lines:
    """One record a line; a position is the offset of its first byte."""

    def __init__(self, path: Path, parse: Callable[[bytes], Item | bytes], *, hint: str) -> None:
        """Read *path* with *parse*, which raises `ValueError` for a wrong line."""
        self._path = path
        self._parse = parse
        self._hint = hint
        self._file: BinaryIO | None = None

    def records(self, start: int) -> Iterator[Record]:
        """Yield a record for each line that is not blank."""
        with self._path.open("rb") as file:
            file.seek(start)
            position = start
            for line in file:
                following = position + len(line)
                text = _stripped(line, position)
                if text:
                    yield Record(position, following, self._read(text, position))
                position = following

    def read(self, position: int) -> Item | bytes:
        """Return the record of the line at *position*."""
        if self._file is None:
            self._file = self._path.open("rb")
        self._file.seek(position)
        return self._read(_stripped(self._file.readline(), position), position)

    def place(self, position: int) -> str:
        """Return file and line number."""
        return f"{self._path}:{1 + _count_lines(self._path, position)}"

    def count(self) -> int:
        """Count line feeds: about as fast as the disk reads."""
        return _count_lines(self._path, None)

    def holds(self, text: bytes) -> bool:
        """Whether *text* stands anywhere in the file."""
        with self._path.open("rb") as file:
            if not file.read(1):
                return False
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
                return whole.find(text) >= 0

    def close(self) -> None:
        """Close the file; it opens again when needed."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def _read(self, text: bytes, position: int) -> Item | bytes:
        try:
            return self._parse(text)
        except ValueError as exc:
            raise SourceError(f"{self.place(position)}: this line cannot be read: {exc}", hint=self._hint) from None


class Elements:
    """The elements of one array, character for character; a position is an index. All in memory."""

    def __init__(self, path: Path, key: DocumentKey) -> None:
        """Read *path* on first use."""
        self._path = path
        self._key = key
        self._loaded: list[msgspec.Raw] | None = None

    def records(self, start: int) -> Iterator[Record]:
        """Yield a record for each element."""
        for index in range(start, self.count()):
            yield Record(index, index + 1, self.read(index))

    def read(self, position: int) -> Item | bytes:
        """Return the element at this index."""
        try:
            return document(self._key, bytes(self._all()[position]))
        except ValueError as exc:
            raise SourceError(
                f"{self.place(position)}: this element cannot be read: {exc}",
                hint="each element needs the members that the key template names",
            ) from None

    def place(self, position: int) -> str:
        """Return file and index."""
        return f"{self._path}[{position}]"

    def count(self) -> int:
        """Return the number of elements."""
        return len(self._all())

    def close(self) -> None:
        """Let go of the elements."""
        self._loaded = None

    def _all(self) -> list[msgspec.Raw]:
        if self._loaded is None:
            try:
                self._loaded = _elements(self._path.read_bytes().removeprefix(_BOM))
            except (msgspec.DecodeError, RecursionError) as exc:
                raise SourceError(
                    f"{self._path}: this is no JSON array: {exc}", hint="without each=1 the whole file is one item"
                ) from None
        return self._loaded


class WholeFile:
    """A file as the value of one item."""

    def __init__(self, path: Path, key: DocumentKey) -> None:
        """Read *path* when asked; a constant key needs no look into it."""
        self._path = path
        self._key = key

    def records(self, start: int) -> Iterator[Record]:
        """Yield the one record, unless *start* is behind it."""
        if start == 0:
            yield Record(0, 1, self.read(0))

    def read(self, position: int) -> Item | bytes:
        """Return the file."""
        try:
            return document(self._key, self._path.read_bytes())
        except ValueError as exc:
            raise SourceError(
                f"{self.place(position)}: {exc}", hint="each=1 in the URL makes each element of an array an item"
            ) from None

    def place(self, position: int) -> str:  # noqa: ARG002 - there is one place only
        """Return the file."""
        return str(self._path)

    def count(self) -> int:
        """Return 1."""
        return 1

    def close(self) -> None:
        """Do nothing: the file is open only while it is read."""


def _stripped(line: bytes, position: int) -> bytes:
    return (line.removeprefix(_BOM) if position == 0 else line).strip(_BLANK)


def _count_lines(path: Path, end: int | None) -> int:
    """Count the line feeds before offset *end*."""
    lines = 0
    with path.open("rb") as file:
        left = path.stat().st_size if end is None else end
        while left and (block := file.read(min(left, 1 << 20))):
            lines += block.count(b"\n")
            left -= len(block)
    return lines
