"""How the tables get their first content: scenarios L and O, variants V01 to V15 and V40 to V45."""

from __future__ import annotations

from tests.model import first_load, sweeps
from tests.model.cases import Scenario, Variant
from tests.model.first_load import FirstLoad
from tests.model.sweeps import Sweeps

Load = first_load.Naive
Sweep = sweeps.Naive
_RECONCILE = ("on", "reconcile")

L1 = Scenario("L1", "first load, update and delete meanwhile", FirstLoad, first_load.Setup("SD"), 408)
L2 = Scenario("L2", "first load of a key that appears meanwhile", FirstLoad, first_load.Setup("SS", exists=False), 392)
L3 = Scenario(
    "L3", "first load, log 2 -> 1, failover of the store anywhere", FirstLoad,
    first_load.Setup("SS", failovers=1, other_keys=1), 91_253,
)  # fmt: skip
L4 = Scenario(
    "L4", "the same of a key that appears meanwhile", FirstLoad,
    first_load.Setup("SS", exists=False, failovers=1, visits=1), 5691,
)  # fmt: skip
O1 = Scenario("O1", "offline runs, then a merge run", Sweeps, sweeps.Setup("SSS"), 9166)
O2 = Scenario("O2", "offline runs, then a merge run, delete", Sweeps, sweeps.Setup("SD"), 2179)
O3 = Scenario(
    "O3", "dualwrite left and entered again, strong read", Sweeps,
    sweeps.Setup("SSS", ("on", "merge", "off", "on", "merge"), runs=0, reads=1), 28_109,
)  # fmt: skip
O4 = Scenario(
    "O4", "offline runs, then a reconcile, strong read", Sweeps, sweeps.Setup("SS", _RECONCILE, reads=1), 14_531
)
O5 = Scenario("O5", "offline runs, then a reconcile, delete", Sweeps, sweeps.Setup("SD", _RECONCILE), 3308)
O6 = Scenario(
    "O6", "dualwrite left and entered again with a reconcile", Sweeps,
    sweeps.Setup("SSS", (*_RECONCILE, "off", *_RECONCILE), runs=0, reads=1), 57_896,
)  # fmt: skip

SCENARIOS = (L1, L2, L3, L4, O1, O2, O3, O4, O5, O6)

VARIANTS = (
    Variant("V01", "first load with log 1, mirrors and acks", L1, Load.MIRRORS_AT_ONCE, "CLEAN"),
    Variant("V02", "acks while marks are only collected", L1, Load.ACKS_DURING_LOAD, "CLEAN"),
    Variant("V03", "rows labelled with the clock of their COPY", L1, Load.LABEL_OF_NOW, "CLEAN"),
    Variant("V04", "of a key copied twice any copy is kept", L1, Load.DEDUPE_KEEPS_ANY, "CLEAN"),
    Variant("V05", "log 2 -> 1 before the keys are built", L1, Load.LOG_BEFORE_KEYS, "CLEAN"),
    Variant("V06", "failover during a load: suspects by label", L3, Load.SUSPECTS_BY_LABEL, "CLEAN"),
    Variant("V07", "COPY without the fence", L3, Load.COPY_NOT_FENCED, "CLEAN"),
    Variant("V08", "mirrors fenced by authority, not by epoch", L4, Load.MIRROR_WITHOUT_EPOCH, "CLEAN"),
    Variant("V09", "offline rows labelled with epoch and clock", O1, Sweep.OFFLINE_LABEL_OF_NOW, "MONO"),
    Variant("V10", "offline runs not fenced by epoch 0", O2, Sweep.OFFLINE_NOT_FENCED, "QUIESCE"),
    Variant("V11", "no merge run", O1, Sweep.NO_SWEEP, "QUIESCE"),
    Variant("V12", "merge run without the reverse pass", O2, Sweep.NO_REVERSE_PASS, "QUIESCE"),
    Variant("V13", "dualwrite entered again at the same epoch", O3, Sweep.SAME_EPOCH_AGAIN, "RYW"),
    Variant("V14", "the backfill still counts after dualwrite was left", O3, Sweep.BACKFILL_STILL_COUNTS, "RYW"),
    Variant("V15", "logging ends before the backfill stops counting", O3, Sweep.BACKFILL_COUNTS_TOO_LONG, "RYW"),
    Variant("V40", "the load begins before replicas have log 2", L4, Load.LOG_NOT_CONFIRMED, "CLEAN"),
    Variant("V41", "failover: the replica's older log stays", L3, Load.LOG_NOT_RESTORED, "QUIESCE"),
    Variant("V42", "reconcile without the reverse pass", O5, Sweep.NO_REVERSE_PASS, "QUIESCE"),
    Variant("V43", "reconcile compares at the old epoch", O4, Sweep.COMPARED_AT_OLD_EPOCH, "RYW"),
    Variant("V44", "tables read without any reconcile", O4, Sweep.NO_SWEEP, "RYW"),
    Variant("V45", "reconcile counts before its marks are drained", O4, Sweep.COUNTS_BEFORE_DRAIN, "RYW"),
)
