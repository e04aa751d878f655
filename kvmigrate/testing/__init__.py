"""A store and tables in memory, which behave as the real ones do: for tests of programs that write through `store`."""

from kvmigrate.testing.divergence import DivergenceError
from kvmigrate.testing.memory_migration import MemoryMigration

__all__ = ["DivergenceError", "MemoryMigration"]
