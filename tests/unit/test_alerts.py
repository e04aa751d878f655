"""The alert rules that are shipped: well formed, of metrics that exist, each with a page that says what to do."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvmigrate.cli.sample_lines import SampleLines
from kvmigrate.consistency import sample_metrics
from kvmigrate.consistency.rounds import RATE, ROUND_KEYS
from kvmigrate.dualwrite import readings
from kvmigrate.reads import metrics as read_metrics

TOKEN = re.compile(
    r"\s+|[a-z_]+|\[\d+[smhd]\]|\{[a-z]+=\"[^\"]*\"(,[a-z]+=\"[^\"]*\")*\}|\d+(\.\d+)?|==|!=|>=|<=|[-+*/<>(),]"
)
WORDS = {"max", "min", "sum", "by", "and", "or", "unless", "rate", "delta", "absent", "scope", "endpoint", "entity"}
FIELDS = {"alert", "expr", "for", "labels", "annotations"}


def rules(repository: Path) -> list[dict[str, Any]]:
    """All rules of the file."""
    file = yaml.safe_load((repository / "examples" / "prometheus" / "alerts.yaml").read_text())
    assert ["groups"] == list(file)
    return [rule for group in file["groups"] for rule in group["rules"]]


def metrics() -> set[str]:
    """Every metric that a relay, a sampler or a process that reads has, histograms without their suffixes."""
    found = {f"kvmigrate_{name}" for name in sample_metrics._TOLD}
    found |= set(re.findall(r"# TYPE (\w+)", readings.prometheus(readings.Readings(), "shop")))
    text = Path(read_metrics.__file__).read_text()
    return found | {f"kvmigrate_{name}" for name in re.findall(r'"(\w+)",\s*"(?:counter|gauge|histogram)"', text)}


def test_each_rule_is_whole(repository: Path) -> None:
    """An expression, a time, how urgent it is, what it means, and a page that exists."""
    found = rules(repository)

    assert len(found) == len({rule["alert"] for rule in found}) > 10
    for rule in found:
        assert set(rule) == FIELDS, rule
        assert re.fullmatch(r"\d+[smh]", rule["for"])
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert {"summary", "runbook"} == set(rule["annotations"])
        assert (repository / rule["annotations"]["runbook"]).is_file()


def test_an_alert_of_a_round_may_fire_within_one(repository: Path) -> None:
    """The count of sampled keys begins anew with each round: what waits for more of it must not wait for longer."""
    waits = [rule["for"] for rule in rules(repository) if "kvmigrate_sampled_keys) >" in rule["expr"]]

    assert waits
    assert all(int(wait.removesuffix("m")) * 60 < (ROUND_KEYS - 10_000) / RATE for wait in waits)


def test_each_expression_is_one(repository: Path) -> None:
    """Made of known words, metrics that exist, and parentheses in pairs."""
    known = metrics()
    for rule in rules(repository):
        text, place, depth = rule["expr"], 0, 0
        while place < len(text):
            token = TOKEN.match(text, place)
            assert token is not None, (rule["alert"], text[place:])
            word = token[0]
            place = token.end()
            depth += {"(": 1, ")": -1}.get(word, 0)
            assert depth >= 0, rule
            if word.isidentifier():
                assert word in WORDS | known, (rule["alert"], word)
        assert 0 == depth, rule


@pytest.mark.parametrize("path", ["/health", "/metrics"])
def test_a_sampler_that_knows_nothing_yet_answers(path: str) -> None:
    """A probe at its start is no failure."""
    assert 200 == SampleLines("shop").answer(path)[0]
