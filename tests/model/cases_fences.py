"""Fences and marks that are lost, several shards, and a KV table: scenarios S, F, M and T, their variants."""

from __future__ import annotations

from tests.model import dirty_cap, fences, kv_table, shards
from tests.model.cases import Scenario, Variant
from tests.model.dirty_cap import DirtyCap
from tests.model.fences import Fences
from tests.model.kv_table import KVTable
from tests.model.shards import Shards

Flip = shards.Naive
Lost = fences.Naive
Cap = dirty_cap.Naive
Table = kv_table.Naive

_KEYS = ("aa", "ab")

S1 = Scenario("S1", "two shards, two controllers, abort, rollback", Shards, shards.Setup(), 27_774)
F1 = Scenario("F1", "the fence is lost once, flip", Fences, fences.Setup(), 20_850)
F2 = Scenario("F2", "the fence is lost twice, flip", Fences, fences.Setup(losses=2, writes=2), 139_278)
F3 = Scenario("F3", "the fence is lost, a writer is cut off from the tables", Fences, fences.Setup(cut_off=True), 1876)
F4 = Scenario(
    "F4", "seal and marks are lost with the fence, the controller restarts", Fences,
    fences.Setup(losses=1, writes=2, crashes=1), 19_731,
)  # fmt: skip
M1 = Scenario("M1", "marks over the cap are dropped, the record is a count", DirtyCap, dirty_cap.Setup(), 27_898)
M2 = Scenario("M2", "the same, the record is a flag moved into control", DirtyCap, dirty_cap.Setup(flag=True), 22_943)
T1 = Scenario("T1", "KV table: marks, two relays", KVTable, kv_table.Setup(_KEYS, relays=2), 5161)
T2 = Scenario("T2", "KV table: ordered outbox", KVTable, kv_table.Setup(_KEYS, outbox=True), 159)

SCENARIOS = (S1, F1, F2, F3, F4, M1, M2, T1, T2)

VARIANTS = (
    Variant("V28", "tables open before all shards are sealed", S1, Flip.ONE_SHARD_SEALED, "SINGLE"),
    Variant("V29", "only one shard is drained", S1, Flip.ONE_SHARD_DRAINED, "AUTH"),
    Variant("V30", "the controller does not compare", S1, Flip.NO_COMPARE, "SINGLE"),
    Variant("V31", "rollback opens shards while the tables are open", S1, Flip.TABLES_NOT_SEALED, "SINGLE"),
    Variant("V32", "recreated while the tables may be open", F1, Lost.WHILE_TABLES_MAY_BE_OPEN, "SINGLE"),
    Variant("V33", "recreated from a plain read of control", F1, Lost.FROM_A_PLAIN_READ, "SINGLE"),
    Variant("V34", "recreated open, in one step", F2, Lost.OPEN_AT_ONCE, "SINGLE"),
    Variant("V35", "recreated against a flip's intent", F2, Lost.INTENT_IGNORED, "SINGLE"),
    Variant("V36", "nothing is owed for lost marks", F1, Lost.NOTHING_OWED, "CLEAN"),
    Variant("V37", "a writer that is cut off trusts the last authority", F3, Lost.CUT_OFF_TRUSTS_LAST, "AUTH"),
    Variant("V38", "the gate ignores who has seen stage live", F3, Lost.GATE_IGNORES_PROCESSES, "AUTH"),
    Variant("V39", "no fence is seen, and then written unmarked", F3, Lost.PASS_AFTER_CHECK, "CLEAN"),
    Variant("V56", "a reconcile clears the record, whatever was dropped since", M1, Cap.CLEARED_ALWAYS, "CLEAN"),
    Variant("V57", "marks are dropped and nothing is noted", M1, Cap.DROPPED_UNNOTED, "CLEAN"),
    Variant("V58", "the note is made after the drop", M1, Cap.NOTED_AFTER_DROP, "CLEAN"),
    Variant("V59", "a flag is compared as if it were a count", M1, Cap.FLAG_COMPARED_AS_COUNT, "CLEAN"),
    Variant("V60", "the flag is taken before control owes", M2, Cap.FLAG_TAKEN_FIRST, "CLEAN"),
    Variant("V61", "a lost seal is set again", F4, Lost.SEAL_SET_AGAIN, "CLEAN"),
    Variant("V62", "no marks counts as drained, without the seal", F4, Lost.DRAINED_WITHOUT_SEAL, "AUTH"),
    Variant("T01", "a cursor over ids", T2, Table.CURSOR_OVER_IDS, "QUIESCE"),
    Variant("T02", "the version is taken before the lock", T1, Table.VERSION_BEFORE_LOCK, "MONO"),
    Variant("T03", "value and version in two statements", T1, Table.VALUE_AND_VERSION_APART, "MONO"),
    Variant("T04", "a sequence that caches", T1, Table.SEQUENCE_WITH_CACHE, "MONO"),
)
