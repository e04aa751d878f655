"""What a process counts, told with its heartbeats."""

from kvmigrate.dualwrite.command_use import CommandUse
from kvmigrate.dualwrite.companion import Companion
from kvmigrate.errors import TargetError
from kvmigrate.model import Stage
from kvmigrate.testing import MemoryMigration
from tests.unit.test_redis_commands import MAPPING


def test_uses_are_told_and_told_once() -> None:
    """Those that could not be told are told the next time."""
    shop = MemoryMigration(MAPPING, Stage.DUALWRITE)
    use = CommandUse()
    companion = Companion(lambda: shop.memory, lambda: shop.tables, use=use)
    use.count("INCR", ["client"])
    use.count("INCR", ["client", "order"])

    def fail(operation: str, deadline_s: float) -> None:
        raise TargetError(f"{operation} does not answer within {deadline_s} s")

    shop.tables.before = fail
    assert not companion._attempt(companion._tell_use, "uses")
    shop.tables.before = lambda _operation, _deadline_s: None
    assert companion._attempt(companion._tell_use, "uses")
    assert companion._attempt(companion._tell_use, "uses")

    assert {("INCR", "client"): 2, ("INCR", "order"): 1} == shop.tables.commands
