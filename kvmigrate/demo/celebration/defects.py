"""Everything that is wrong with the shop's data on purpose, and where each must end."""

from __future__ import annotations

from typing import NamedTuple

from kvmigrate.model import Bin, Reason


class Defect(NamedTuple):
    """One kind of injected defect.

    Attributes:
        bin: Where every item that has it must end.

        what: One sentence for people.

        reason: With bin QUARANTINED: the reason that the report must group it under.
    """

    bin: Bin
    what: str
    reason: Reason | None = None


_Q, _T, _W, _L = Bin.QUARANTINED, Bin.WAITING, Bin.WRITTEN, Bin.LEFT_IN_KV

DEFECTS: dict[str, Defect] = {
    "price_not_a_number": Defect(_Q, 'a gift\'s price is the text "N/A"', Reason.TYPE),
    "price_out_of_range": Defect(_Q, "a gift's price has more decimals than numeric(12,2) holds", Reason.RANGE),
    "items_not_an_array": Defect(_Q, "an order's items are a text", Reason.TYPE),
    "required_missing": Defect(_Q, "a client has no name, or an employee no email", Reason.REQUIRED),
    "nul_in_text": Defect(_Q, "a text holds U+0000, which PostgreSQL refuses", Reason.NUL),
    "lone_surrogate": Defect(_Q, "a text holds half of a surrogate pair", Reason.SURROGATE),
    "not_json": Defect(_Q, "the value was cut off: it is not JSON", Reason.NOT_JSON),
    "not_an_object": Defect(_Q, "the value is a bare number", Reason.NOT_OBJECT),
    "orphan": Defect(_T, "the client, site or catalog that an item names does not exist"),
    "other_tenant": Defect(_T, "an order names a site of another client"),
    "same_row": Defect(_T, "two generations of one id: the later key pattern waits"),
    "same_sku": Defect(_T, "two gifts of one catalog share a sku: one of them waits"),
    "double_encoded": Defect(_W, "the value is a JSON string that holds JSON"),
    "missing_gift": Defect(_W, "an order line or exclusion names a gift that does not exist: NULL until it comes"),
    "missing_optional_parent": Defect(_W, "an order's employee or an event's site does not exist: NULL until it comes"),
    "foreign_id": Defect(_W, "the id is no UUID (gift-1, test-client-001)"),
    "number_as_text": Defect(_W, 'a number is written as text ("30", "12.50")'),
    "epoch_time": Defect(_W, "a time is milliseconds since 1970 where others are ISO text"),
    "odd_iso_time": Defect(_W, "an ISO time with an offset, or without milliseconds"),
    "other_case": Defect(_W, "members in the other case: contactEmail where others have contact_email"),
    "explicit_null": Defect(_W, "a member is null where others leave it out"),
    "unknown_status": Defect(_W, 'a gift\'s status is "ACTIVE", which the enum does not know: kept raw'),
    "no_total": Defect(_W, "an order has neither total nor creation time: NULL, never 0 or now"),
    "duplicate_member": Defect(_W, "an object has the same member twice: the last wins"),
    "empty_items": Defect(_W, "an order has an empty array of items"),
    "unmapped_member": Defect(_W, "members that no column claims: they go to rest"),
    "later_generation": Defect(_W, "the key has the form of a later or environment-aware writer"),
    "expiring": Defect(_W, "an analytics event with a TTL: expires_at"),
    "list_drift": Defect(_L, "an id list names what does not exist, or leaves out what does"),
}
