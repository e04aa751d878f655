"""Items that are refused, for others' sake or their own: scenarios W and K, variants V16 to V27 and V46 to V55, V63."""

from __future__ import annotations

from tests.model import kept_items
from tests.model.cases import Scenario, Variant
from tests.model.kept_items import KeptItems
from tests.model.waiting import Waiting
from tests.model.waiting_state import Naive, Setup

Kept = kept_items.Naive

_NONE = ("", "")
_SMALL = Setup((("P",), ("r",)), _NONE)
_RING = (("b",), ("c",), ("a",))
_ABC = ("a", "b", "c")

W1 = Scenario("W1", "missing parent", Waiting, Setup((("P", "", "P"), ("r", "r")), _NONE), 45_337)
W2 = Scenario("W2", "parent deleted and written again", Waiting, Setup((("", "P"), ("r",)), ("P", "r")), 1440)
W3 = Scenario("W3", "missing parent, null instead", Waiting, Setup((("P", "", "P"), ("r",)), _NONE, null=True), 6614)
W4 = Scenario("W4", "two unique values swapped", Waiting, Setup((("b",), ("a",)), ("a", "b")), 350)
W5 = Scenario("W5", "two keys of one row", Waiting, Setup((("a", "", "a"), ("a",)), _NONE), 6002)
W6 = Scenario(
    "W6", "a newer version waits, an older mirror is late", Waiting, Setup((("c", "b"), ("",)), ("", "b")), 1466
)
W7 = Scenario("W7", "a ring of three unique values", Waiting, Setup(_RING, _ABC), 10_071)
W8 = Scenario("W8", "parent, child, grandchild in any order", Waiting, Setup((("P",), ("Q",), ("s",)), ("",) * 3), 6093)
W9 = Scenario(
    "W9", "a ring of three in one transaction, checked at its end", Waiting,
    Setup(_RING, _ABC, batches=True, mirrors=False), 182,
)  # fmt: skip
W10 = Scenario(
    "W10", "a chain in one transaction, parent deleted", Waiting,
    Setup((("P", ""), ("Q",), ("s",)), ("",) * 3, batches=True, mirrors=False), 361,
)  # fmt: skip
W11 = Scenario(
    "W11", "inline mirror leaves a missing parent to the applier", Waiting,
    Setup((("P",), ("r", "r")), _NONE, plain_mirror=True), 516,
)  # fmt: skip
W12 = Scenario(
    "W12", "inline mirror leaves a deleted parent to the applier", Waiting,
    Setup((("", "P"), ("r",)), ("P", "r"), plain_mirror=True), 863,
)  # fmt: skip
W13 = Scenario(
    "W13", "inline mirrors of plain items, batches of the applier", Waiting,
    Setup((("P", "", "P"), ("r",)), _NONE, batches=True, plain_mirror=True), 3446,
)  # fmt: skip
K1 = Scenario("K1", "quarantined, waived, kept, flips there and back", KeptItems, kept_items.Setup("SQQS"), 271)

SCENARIOS = (W1, W2, W3, W4, W5, W6, W7, W8, W9, W10, W11, W12, W13, K1)

VARIANTS = (
    Variant("V16", "a missing parent quarantines", W1, Naive.QUARANTINE_INSTEAD, "QUIESCE"),
    Variant("V17", "no poll", W1, Naive.NO_POLL, "QUIESCE"),
    Variant("V18", "one poll, never repeated", W1, Naive.POLL_ONCE, "QUIESCE"),
    Variant("V19", "waiting refuses its own version", W1, Naive.SAME_VERSION_REFUSED, "STUCK", _SMALL),
    Variant("V20", "waiting does not move the ledger", W6, Naive.LEDGER_STAYS, "QUIESCE"),
    Variant("V21", "equal content is skipped though it waits", W3, Naive.HASH_IGNORES_WAITERS, "STUCK"),
    Variant("V22", "a parent's delete leaves those that refer to it", W2, Naive.REFERRERS_STAY, "QUIESCE"),
    Variant("V23", "old rows of waiting items do not yield", W4, Naive.NO_YIELDING, "QUIESCE"),
    Variant("V24", "quarantine is looked at before the seal only", K1, Kept.CHECKED_BEFORE_SEAL_ONLY, "AUTH"),
    Variant("V25", "what is kept is not written again", K1, Kept.KEPT_NOT_REWRITTEN, "AUTH"),
    Variant("V26", "what is kept is not mirrored back", K1, Kept.KEPT_NOT_REVERSED, "AUTH"),
    Variant("V27", "what is kept stays once its item is valid", K1, Kept.KEPT_NOT_DELETED, "AUTH"),
    Variant("V46", "each apply polls once, in its own old snapshot", W1, Naive.POLL_OLD_SNAPSHOT, "QUIESCE"),
    Variant("V47", "whoever changes a value wakes whom it sees", W1, Naive.PROVIDER_WAKES, "QUIESCE"),
    Variant("V48", "the poll forgets that rows yield", W4, Naive.POLL_FORGETS_YIELDING, "QUIESCE"),
    Variant("V49", "a ring, and rows do not yield", W7, Naive.NO_YIELDING, "QUIESCE"),
    Variant("V50", "a chain, and whoever comes wakes whom it sees", W8, Naive.PROVIDER_WAKES, "QUIESCE"),
    Variant("V51", "a batch is checked at each item", W9, Naive.BATCH_NOT_DEFERRED, "QUIESCE"),
    Variant("V52", "a refused batch is never split", W10, Naive.BATCH_NEVER_SPLIT, "QUIESCE"),
    Variant("V53", "inline mirror acks what it left", W11, Naive.INLINE_ACKS_WHAT_IT_LEFT, "QUIESCE"),
    Variant("V54", "inline mirror skips rows that are refused", W11, Naive.INLINE_SKIPS_WHAT_IS_REFUSED, "LEDGER"),
    Variant("V55", "inline mirror, and referrers stay", W12, Naive.REFERRERS_STAY, "QUIESCE"),
    Variant("V63", "batches, and each polls in its own old snapshot", W13, Naive.POLL_OLD_SNAPSHOT, "QUIESCE"),
)
