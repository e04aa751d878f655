"""All scenarios and all naive variants, in the order of pages."""

from __future__ import annotations

from tests.model import cases_fences, cases_items, cases_loads, cases_primary

_PARTS = (cases_primary, cases_loads, cases_items, cases_fences)

SCENARIOS = tuple(scenario for part in _PARTS for scenario in part.SCENARIOS)
VARIANTS = tuple(sorted((variant for part in _PARTS for variant in part.VARIANTS), key=lambda variant: variant.code))
