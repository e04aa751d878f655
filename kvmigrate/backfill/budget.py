"""How many items may be quarantined before a run gives up."""

from __future__ import annotations

from typing import NamedTuple, Self

from kvmigrate.errors import CheckFailedError, ConfigError

ENOUGH_ITEMS = 1_000
"""A share of fewer items says little; only the end of a run is judged by it."""


class Tolls(NamedTuple):
    """Items that were seen, and how many of them were quarantined."""

    quarantined: int = 0
    items: int = 0

    def plus(self, other: Tolls) -> Tolls:
        """Return the sum."""
        return Tolls(self.quarantined + other.quarantined, self.items + other.items)


class Budget(NamedTuple):
    """At most so many quarantined items, or at most so many of a hundred.

    Attributes:
        text: As it was typed.
    """

    text: str
    limit: float
    percent: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the budget that ``100`` or ``0.5%`` means.

        Raises:
            ConfigError: it means none.
        """
        number = text.strip().removesuffix("%").strip()
        percent = text.strip().endswith("%")
        try:
            limit = float(number) if percent else int(number)
        except ValueError:
            limit = -1
        if not 0 <= limit <= (100 if percent else float("inf")):
            raise ConfigError(f"--max-quarantined {text!r} is no number of items", hint="such as 100, or 0.5%")
        return cls(text.strip(), limit, percent)

    def exceeded(self, tolls: Tolls, *, at_end: bool = False) -> str:
        """Return what to say of items that are more than the budget allows; "" where they are not."""
        if self.percent:
            judged = at_end or tolls.items >= ENOUGH_ITEMS
            over = judged and tolls.quarantined * 100 > self.limit * tolls.items
        else:
            over = tolls.quarantined > self.limit
        if not over:
            return ""
        return (
            f"{tolls.quarantined:,} of {tolls.items:,} items were quarantined, "
            f"more than --max-quarantined {self.text} allows"
        )


def over_budget(said: str, *, finished: bool) -> CheckFailedError:
    """Return the error of a run that quarantined more than it may. *finished*: nothing is left to do."""
    rest = "everything else is in the tables" if finished else "nothing more was read"
    goes_on = "" if finished else ", and the same command goes on after, with a larger budget if need be"
    return CheckFailedError(
        f"{said}; {rest}", hint=f"`kvmigrate quarantine list` shows them; mend the mapping or the data{goes_on}"
    )
