"""One item that leaves both sides and everything that is kept of it, wired: ``kvmigrate erase``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import NamedTuple

from kvmigrate.config import who_asks
from kvmigrate.consistency.repair_report import Outcome
from kvmigrate.errors import CheckFailedError, UnmappedKeyError
from kvmigrate.model import Stage
from kvmigrate.repairing import Repair
from kvmigrate.target.live_base import Control
from kvmigrate.target.traces import Traces
from kvmigrate.transform.lens import Lens


class Erasure(NamedTuple):
    """What became of an item.

    Attributes:
        was_in_store: The store held it.

        is_gone: Neither side holds it any more. Where not, something writes it, or a side has not followed yet.

        traces: What the control schema knew of it, by table: rows deleted, documents changed.
    """

    key: str
    entity: str
    was_in_store: bool
    is_gone: bool
    traces: Mapping[str, int]


def erase(
    key: str,
    *,
    url: str,
    lens: Lens,
    control: Control | None,
    delete: Callable[[str], object],
    repair: Repair,
    why: str,
) -> Erasure:
    """Delete *key* wherever the authority is, follow it to the other side, then take out what is known of it.

    May be repeated, and must be where it was cut short, or where `Erasure.is_gone` says no.

    Args:
        key: Which item.

        url: The target.

        lens: The mapping at work.

        control: The control row as it is now.

        delete: Deletes the key as an application does.

        repair: Of this mapping.

        why: For the change log, where the key itself does not stand.

    Raises:
        UnmappedKeyError: no entity matches *key*.

        CheckFailedError: the store holds the item, and is not written by kvmigrate: not yet, since both sides are not
            written at once, or not any more, since the migration is complete.
    """
    entity = lens.route(key).entity
    if entity is None:
        raise UnmappedKeyError(f"no entity of the mapping matches {key[:100]!r}", hint="check the key", key=key)
    [stored] = repair.source.get_many([key])
    is_live = control is not None and bool(control.epoch)
    if stored is not None and not (is_live and control and control.stage is not Stage.COMPLETE):
        raise CheckFailedError(
            f"kvmigrate does not write this store {'any more' if is_live else 'yet'}, and it holds {key!r}",
            hint="delete the key there with the store's own client, then erase again",
        )
    if is_live:
        delete(key)
    repair.bring([key])
    report = repair.run([key])
    [left] = repair.source.get_many([key])
    is_gone = left is None and not report.left and not report.outcomes[Outcome.PENDING]
    with closing(Traces(url, lens.mapping.name)) as traces:
        found = traces.erase(key, entity=entity.name, why=why, who=who_asks()) if is_gone else {}
    return Erasure(key, entity.name, stored is not None, is_gone, found)
