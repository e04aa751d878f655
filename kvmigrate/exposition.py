"""Metrics as Prometheus's text format has them: families of samples, and the page that tells them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]

Sample = tuple[str, Mapping[str, str], float]
"""What stands behind the name, labels, value."""


class Family(NamedTuple):
    """One metric.

    Attributes:
        name: A counter's ends with ``_total``.
    """

    name: str
    kind: Kind
    told: str
    samples: Sequence[Sample]


def page_of(families: Iterable[Family]) -> str:
    """Return the text of those that have samples; numbers keep all of their digits."""
    lines: list[str] = []
    for family in families:
        if not family.samples:
            continue
        lines += [f"# HELP {family.name} {family.told}", f"# TYPE {family.name} {family.kind}"]
        lines += [f"{family.name}{end}{_labels(labels)} {value!r}" for end, labels, value in family.samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
