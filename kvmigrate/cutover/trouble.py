"""What is wrong between both stores, told from what stands in them: pure."""

from __future__ import annotations

import enum

from kvmigrate.cutover.decide import Fences, expected, place
from kvmigrate.cutover.intent import read_intent
from kvmigrate.model import Authority, Stage
from kvmigrate.target.live_base import Control


class Trouble(enum.StrEnum):
    """What has to be mended before anything else is done."""

    NONE = "none"

    TARGET_RESTARTED = "the database failed over or was restored"

    STORE_RESTARTED = "the store was restarted, failed over or was restored"

    FENCE_MISSING = "a shard of the store has no fence"

    FENCE_BEHIND = "a shard of the store is behind the control row"

    FENCE_AHEAD = "the store and the control row disagree"


def diagnose(control: Control, fences: Fences, *, store_life: str, target_life: str) -> Trouble:
    """Return the worst of what is wrong.

    Lives that the control row does not know yet ("") are no trouble; nor is a store without fences that never had any.
    """
    if control.epoch == 0:
        return Trouble.NONE
    if control.target_incarnation and target_life != control.target_incarnation:
        return Trouble.TARGET_RESTARTED
    places = {place(fence) for fence in fences.values()} - expected(control)
    if any(found is not None and _is_ahead(control, *found) for found in places):
        return Trouble.FENCE_AHEAD
    if control.store_incarnation and store_life != control.store_incarnation:
        return Trouble.STORE_RESTARTED
    if _moves_fences(control):
        # The move that is under way brings them where they have to be.
        return Trouble.NONE
    if None in places:
        return Trouble.FENCE_MISSING
    return Trouble.FENCE_BEHIND if places else Trouble.NONE


def _is_ahead(control: Control, epoch: int, authority: Authority) -> bool:
    """Whether a fence cannot come from an earlier place of the control row."""
    if epoch != control.epoch:
        return epoch > control.epoch
    if control.authority is Authority.STORE:
        return authority in {Authority.TABLES, Authority.RETIRED}
    # Closed, or open to the reverse mirror alone: that is behind at most.
    return authority is Authority.STORE


def _moves_fences(control: Control) -> bool:
    intent = read_intent(control)
    if intent is None:
        return False
    return intent.to in {Stage.DUALWRITE, Stage.OFF} or intent.owing
