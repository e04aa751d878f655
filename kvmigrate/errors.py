"""Everything kvmigrate raises on purpose.

::

    KVMigrateError
    +-- ConfigError            a setting or URL is missing or wrong         (exit 2)
    |   +-- MappingError       the mapping file is wrong; has line, column  (exit 2)
    |       +-- NotSupportedError  a declared feature that is not built yet (exit 2)
    +-- SourceError            the KV store failed or refused
    +-- TargetError            PostgreSQL failed or refused
    |   +-- FenceError         the control row forbids this write now
    |   +-- OnlyInStoreError   an item that waits: the tables do not have its value
    |   +-- SchemaError        tables differ from what the mapping wants
    +-- FlagsError             a flag server failed or refused
    +-- LensError              rows that no blob can correspond to
    +-- ServerError            an embedded server could not be started
    +-- CheckFailedError       a gate, check or budget was not met          (exit 3)
    |   +-- AbsentItemsError   a store lacks more items than is plausible   (exit 3)
    +-- StaleError             another epoch or authority holds the store; nothing was written
    |   +-- SealedError        nobody may write at this moment
    +-- FenceMissingError      the store has no fence, so nobody may write
    +-- AmbiguousWriteError    no answer came: the write may have happened or not
    +-- WriteRefusedError      the open tables cannot hold this value; nothing was written
    +-- DeadlineError          the other side did not answer in time
    +-- CommandRefusedError    a command that no migrated store can take; nothing was sent
    |   +-- NotAfterCutoverError   it works on the store alone, and the tables are the authority
    +-- UnmappedKeyError       a key that no entity of the mapping matches
    +-- BadValueError          a value that is no JSON

The CLI prints message and hint and ends with `exit_code`.
"""

from __future__ import annotations

from typing import ClassVar


class KVMigrateError(Exception):
    """Base class: catch this to catch everything raised on purpose.

    *hint* is the next thing an operator should do. The CLI prints it under the
    message; it is kept apart so that logs can index the message alone.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "", key: str | None = None, path: str | None = None) -> None:
        """Keep *message* for people, *hint* for the next step, *key* and *path* for where."""
        super().__init__(message)
        self.hint = hint
        self.key = key
        self.path = path


class ConfigError(KVMigrateError):
    """A setting, option or URL is missing or wrong."""

    code = "config"
    exit_code = 2


class MappingError(ConfigError):
    """The mapping file is wrong. *line* and *column* count from 1; 0 means the whole file."""

    code = "mapping"

    def __init__(self, message: str, *, line: int = 0, column: int = 0, file: str = "", hint: str = "") -> None:
        """Put ``file:line:column`` before the message, as compilers do."""
        where = f"{file or 'mapping'}:{line}:{column}: " if line else f"{file}: " if file else ""
        super().__init__(where + message, hint=hint)
        self.line, self.column, self.file = line, column, file


class NotSupportedError(MappingError):
    """The mapping asks for something that is planned and not built yet."""

    code = "not-supported"


class SourceError(KVMigrateError):
    """The KV store failed or refused. What was written before stays and can be resumed."""

    code = "source"


class TargetError(KVMigrateError):
    """PostgreSQL failed or refused. The open transaction was rolled back; nothing of it is visible."""

    code = "target"


class FenceError(TargetError):
    """The control row says that another epoch or authority holds this scope."""

    code = "fence"


class OnlyInStoreError(TargetError):
    """The item is known to the tables, and only the store has its value: it waits for another item."""

    code = "only-in-store"


class SchemaError(TargetError):
    """The tables are missing or differ from what the mapping wants."""

    code = "schema"


class FlagsError(KVMigrateError):
    """A flag server failed or refused. Reads go on by what was known last."""

    code = "flags"


class LensError(KVMigrateError):
    """Rows that no blob can correspond to, such as a child without its parent."""

    code = "lens"


class ServerError(KVMigrateError):
    """An embedded server could not be found or started."""

    code = "server"


class CheckFailedError(KVMigrateError):
    """A gate, check or error budget was not met."""

    code = "check"
    exit_code = 3


class AbsentItemsError(CheckFailedError):
    """A store lacks more items than is plausible. Their rows stay until a person says that they are gone."""

    code = "absent-items"


class StaleError(KVMigrateError):
    """The fence of the store is at another epoch or authority. Nothing was written; read the fence, route anew."""

    code = "stale"

    def __init__(self, message: str, *, epoch: int, authority: str, hint: str = "", key: str | None = None) -> None:
        """Keep the fence that was found."""
        super().__init__(message, hint=hint, key=key)
        self.epoch, self.authority = epoch, authority


class SealedError(StaleError):
    """The authority is moving from one side to the other. Nothing was written; it takes well under a second."""

    code = "sealed"


class FenceMissingError(KVMigrateError):
    """The store holds no fence for this mapping: it is new, or it was emptied or restored. Nothing was written."""

    code = "fence-missing"


class AmbiguousWriteError(KVMigrateError):
    """The connection was lost before the answer: the write may have happened or not.

    It was not tried again, as a second write would be a new one. Read the key, then decide.
    """

    code = "ambiguous-write"


class WriteRefusedError(KVMigrateError):
    """The tables are the authority and cannot hold this value. Nothing was written."""

    code = "write-refused"


class DeadlineError(KVMigrateError):
    """A side did not answer in time. Its connection was given up."""

    code = "deadline"


class UnmappedKeyError(KVMigrateError):
    """No entity of the mapping matches this key, so that nothing of kvmigrate may write it. Nothing was done."""

    code = "unmapped-key"


class BadValueError(KVMigrateError):
    """The value is no JSON, or would change on its way to JSON. Nothing was written."""

    code = "bad-value"


class CommandRefusedError(KVMigrateError):
    """A command of the store's own language cannot be done while the store is migrated. Nothing was sent."""

    code = "command-refused"

    def __init__(self, message: str, *, command: str, hint: str = "", key: str | None = None) -> None:
        """Keep the command's name."""
        super().__init__(message, hint=hint, key=key)
        self.command = command


class NotAfterCutoverError(CommandRefusedError):
    """The tables are the authority, and the command works on the store alone. Nothing was done."""

    code = "not-after-cutover"
