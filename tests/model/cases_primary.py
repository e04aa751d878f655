"""The core of the protocol: scenarios A to G, variants N01 to N36."""

from __future__ import annotations

from tests.model.cases import Scenario, Variant
from tests.model.primary import Primary
from tests.model.primary_state import Naive, Setup

FORWARD, BACK = "forward", "back"
THERE_AND_BACK = (FORWARD, BACK)

A = Scenario(
    "A", "dual write with deletes, backfill, crash, doubled message", Primary,
    Setup(("SD", "S"), backfills=1, crashes=1, duplicates=1, other_keys=1), 42_703,
)  # fmt: skip
A2 = Scenario("A2", "two backfills, delete", Primary, Setup(("D", "S"), backfills=2, crashes=1, other_keys=1), 5885)
A3 = Scenario("A3", "three writers", Primary, Setup(("S", "S", "D"), backfills=1), 3099)
B = Scenario(
    "B", "flip forward, or abort, during a second backfill", Primary,
    Setup(("SS", "S"), backfills=2, other_keys=1, flips=("forward or abort",)), 213_823, slow=True,
)  # fmt: skip
B2 = Scenario(
    "B2", "the same with a crash", Primary,
    Setup(("SS", "S"), backfills=2, crashes=1, flips=("forward or abort",)), 78_432,
)  # fmt: skip
C = Scenario("C", "flip forward and back", Primary, Setup(("SS", "D"), crashes=1, flips=THERE_AND_BACK), 15_362)
C2 = Scenario(
    "C2", "flip forward, back, forward", Primary, Setup(("SS", "S"), flips=(*THERE_AND_BACK, FORWARD)), 15_490
)
D = Scenario("D", "strong reads over flips", Primary, Setup(("S", "S"), reads=1, flips=THERE_AND_BACK), 4711)
E = Scenario("E", "failover of the store", Primary, Setup(("SS", "S"), store_failovers=1), 19_889)
E2 = Scenario(
    "E2", "failover of the store during a flip", Primary,
    Setup(("SS", "S"), store_failovers=1, flips=(FORWARD,)), 247_204, slow=True,
)  # fmt: skip
E3 = Scenario(
    "E3", "failover of the tables, flips both ways", Primary,
    Setup(("SS", "S"), table_failovers=1, flips=THERE_AND_BACK), 277_911, slow=True,
)  # fmt: skip
F = Scenario(
    "F",
    "a write around the fence, found by reconcile",
    Primary,
    Setup(("S", "S"), bypasses=1, crashes=1, backfills=1),
    6216,
)
G = Scenario("G", "an expiry passes", Primary, Setup(("X", "S"), expiries=1, crashes=1, backfills=1), 1436)

SCENARIOS = (A, A2, A3, B, B2, C, C2, D, E, E2, E3, F, G)

_ONE = Setup(("S",), preset=False)
_TWO = Setup(("S", "S"), preset=False)
_FLIP = Setup(("S", "S"), flips=(FORWARD,))
_BOTH_WAYS = Setup(("SS", "S"), flips=THERE_AND_BACK)

VARIANTS = (
    Variant("N01", "a write leaves no mark", A, Naive.NO_MARK, "QUIESCE", _ONE),
    Variant("N02", "mirrors apply without a guard", A, Naive.NO_GUARD, "MONO", _TWO),
    Variant("N03", "writers' own clocks as versions", A, Naive.WRITER_CLOCKS, "MONO", _TWO),
    Variant("N04", "no tombstones in the ledger", A, Naive.NO_TOMBSTONES, "MONO", Setup(("SD",), preset=False)),
    Variant("N05", "backfill overwrites", A, Naive.BACKFILL_OVERWRITES, "MONO", Setup(("S",), backfills=1)),
    Variant(
        "N06", "backfill inserts what is absent", A2, Naive.BACKFILL_INSERTS_IF_ABSENT, "MONO",
        Setup(("D",), backfills=1),
    ),
    Variant(
        "N07", "backfill reads the value, later the clock", A, Naive.BACKFILL_VALUE_THEN_CLOCK, "ACK",
        Setup(("S",), backfills=1),
    ),
    Variant(
        "N08", "backfill reads the clock, later the value", A, Naive.BACKFILL_CLOCK_THEN_VALUE, "MONO",
        Setup(("SS",), backfills=1),
    ),
    Variant(
        "N09", "write and mark in two round trips", A, Naive.MARK_AFTER_WRITE, "QUIESCE",
        Setup(("S",), crashes=1, preset=False),
    ),
    Variant("N10", "ack without compare", A, Naive.ACK_WITHOUT_COMPARE, "QUIESCE", _TWO),
    Variant(
        "N11", "ack before apply", A, Naive.ACK_BEFORE_APPLY, "QUIESCE", Setup(("S",), crashes=1, preset=False)
    ),
    Variant(
        "N12", "applier labels the value of today with the mark", A, Naive.LABEL_OF_THE_MARK, "MONO",
        Setup(("SS", "S"), preset=False),
    ),
    Variant("N13", "rows of one item in two transactions", A, Naive.ROWS_ONE_BY_ONE, "ATOMIC", _ONE),
    Variant("N14", "flags only: no fence, no seal", B, Naive.FLAGS_ONLY, "SINGLE", _FLIP),
    Variant("N15", "a seal that no write looks at", B, Naive.NO_FENCE, "AUTH", _FLIP),
    Variant("N16", "the fence is checked, then written", B, Naive.FENCE_THEN_WRITE, "AUTH", _FLIP),
    Variant("N17", "flip without drain", B, Naive.NO_DRAIN, "AUTH", Setup(("S",), flips=(FORWARD,))),
    Variant(
        "N18", "rollback without drain", C, Naive.NO_REVERSE_DRAIN, "AUTH", Setup(("SS",), flips=THERE_AND_BACK)
    ),
    Variant("N19", "reverse mirror without a guard", C, Naive.NO_REVERSE_GUARD, "MONO", _BOTH_WAYS),
    Variant("N20", "reverse mirror without the fence", C, Naive.NO_REVERSE_FENCE, "MONO", _BOTH_WAYS),
    Variant("N21", "reverse ack without compare", C, Naive.REVERSE_ACK_WITHOUT_COMPARE, "AUTH", _BOTH_WAYS),
    Variant(
        "N22", "versions without an epoch, after a rollback", C, Naive.NO_EPOCH, "ACK",
        Setup(("SSS", "S"), flips=THERE_AND_BACK),
    ),
    Variant("N23", "failover without a new epoch", E, Naive.FAILOVER_SAME_EPOCH, "QUIESCE"),
    Variant("N24", "versions without an epoch, after a failover", E, Naive.NO_EPOCH, "QUIESCE"),
    Variant("N25", "no reconcile", F, Naive.NO_RECONCILE, "QUIESCE", Setup(("S",), bypasses=1)),
    Variant(
        "N26", "the expiry is not mirrored", G, Naive.EXPIRY_NOT_MIRRORED, "QUIESCE",
        Setup(("X",), expiries=1, preset=False),
    ),
    Variant("N27", "table read without a look at the mark", D, Naive.READ_UNCHECKED, "RYW", Setup(("S",), reads=1)),
    Variant("N28", "the guard is never cleared", C2, Naive.GUARD_NEVER_CLEARED, ""),
    Variant(
        "N29", "mirrors without the fence", B, Naive.MIRROR_NOT_FENCED, "",
        Setup(("S", "S"), backfills=2, other_keys=1, flips=(FORWARD,)),
    ),
    Variant(
        "N30", "flip before the backfill is complete", B, Naive.FLIP_BEFORE_BACKFILL, "AUTH",
        Setup(("S",), backfills=1, flips=(FORWARD,)),
    ),
    Variant("N31", "tables open before replicas have the seal", E2, Naive.SEAL_NOT_CONFIRMED, "SINGLE"),
    Variant("N32", "the store's life is not compared after the seal", E2, Naive.LIFE_NOT_CHECKED, "AUTH"),
    Variant(
        "N33", "the guard is cleared when the tables open", E2, Naive.GUARD_CLEARED_TOO_EARLY, "QUIESCE",
        Setup(("SS",), store_failovers=1, flips=(FORWARD,)),
    ),
    Variant(
        "N34", "failover of the tables ignored, store open", E3, Naive.TABLES_FAILOVER_IGNORED, "QUIESCE",
        Setup(("S", "S"), table_failovers=1),
    ),
    Variant(
        "N35", "failover of the tables ignored, tables open", E3, Naive.TABLES_FAILOVER_IGNORED, "AUTH",
        Setup(("SS", "S"), table_failovers=1, flips=(FORWARD,)),
    ),
    Variant(
        "N36", "marks after a failover of the tables reuse the version", E3, Naive.TOUCH_REUSES_VERSION, "AUTH",
        Setup(("SS", "S"), table_failovers=1, flips=(FORWARD,)),
    ),
)  # fmt: skip
