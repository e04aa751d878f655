"""Key templates: matching, rendering, and which of two says more."""

import random
import re

import pytest

from kvmigrate.model import ADDRESS_SEPARATOR
from kvmigrate.transform.keys.pattern import Capture, KeyTemplate, parse_template
from kvmigrate.transform.keys.template_overlap import clashing_templates, templates_overlap

ID = "6b0f5a0e-9d1c-4f0b-8f60-0a4c6a1d2e01"
_SEGMENTS = [
    "a",
    "b",
    "{x}",
    "{x=a|b}",
    "{x=int}",
    "{x=uuid}",
    "{x*}",
    "a{x}",
    "{x}b",
    "a{x}b",
    "{x=a}",
    "{x*}b",
    "{x=7|a:b}",
]


@pytest.mark.parametrize(
    ("template", "key", "captured"),
    [
        ("client:{id}", "client:7", {"id": "7"}),
        ("client:{id}", "client:", None),
        ("client:{id}", "client:a:b", None),
        ("client:{id}", "clients:7", None),
        ("client:{id}", "client:a\nb", {"id": "a\nb"}),
        ("client:{id}", f"client:a{ADDRESS_SEPARATOR}b", None),
        ("{any*}", "a:b:c", {"any": "a:b:c"}),
        ("x:{any*}", "x:", {"any": ""}),
        ("gift:{env=production|test}:{id}", "gift:test:1", {"env": "test", "id": "1"}),
        ("gift:{env=production|test}:{id}", "gift:prod:1", None),
        ("n:{n=int}", "n:-12", {"n": "-12"}),
        ("n:{n=int}", "n:٣", None),
        ("u:{u=uuid}", f"u:{ID.upper()}", {"u": ID.upper()}),
        ("u:{u=uuid}", f"u:{ID.replace('-', '')}", None),
        ("a.b+{x}", "a.b+1", {"x": "1"}),
        ("a.b+{x}", "aXb+1", None),
        ("{x}:{x}", "1:1", {"x": "1"}),
        ("{x}:{x}", "1:2", None),
        ("plain", "plain", {}),
    ],
)
def test_matching(template: str, key: str, captured: dict[str, str] | None) -> None:
    """A key matches in full or not at all; what was captured renders the same key again."""
    parsed = parse_template(template)

    assert captured == parsed.match(key)
    if captured is not None:
        assert key == parsed.render(captured)


def test_fields_of_a_hash() -> None:
    """A hash's template matches addresses of its fields only, and its field may hold colons when it says so."""
    parsed = parse_template("{id}", hash_key="registry")

    assert {"id": "7"} == parsed.match(f"registry{ADDRESS_SEPARATOR}7")
    assert parsed.match("registry:7") is None
    assert parsed.hash_field


def test_rendering_fills_what_it_can() -> None:
    """A constraint without a value renders its first choice; a capture without one is an error."""
    parsed = parse_template("gift:{env=production|test}:{id}")

    assert "gift:production:7" == parsed.render({"id": "7"})
    with pytest.raises(KeyError, match="id"):
        parsed.render({"env": "test"})


@pytest.mark.parametrize("text", ["a{", "a}", "{}", "{a b}", "{1x}", "{a}{b}", "{a*}{b}", "{{a}}", "{a-b}"])
def test_wrong_templates(text: str) -> None:
    """Braces, names and neighbours that could match in two ways are refused, quoting the template."""
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        parse_template(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a:{x=b|c}", "a:{x}"),
        ("a:{x=uuid}", "a:{x}"),
        ("a:{x}", "a:{x*}"),
        ("a:b", "a:{x}"),
        ("a:{x=b}:{y}", "a:{x}:{y}"),
    ],
)
def test_what_constrains_more(one: str, other: str) -> None:
    """One template narrows the other, never both, and the two overlap."""
    mine, theirs = parse_template(one), parse_template(other)

    assert mine.narrows(theirs)
    assert not theirs.narrows(mine)
    assert templates_overlap(mine, theirs)


def test_crossing_templates_narrow_neither() -> None:
    """Where each says more in another place, nothing decides."""
    one, other = parse_template("a:{x=b|c}:{y}"), parse_template("a:{x}:{y=int}")

    assert templates_overlap(one, other)
    assert not one.narrows(other)
    assert not other.narrows(one)


@pytest.mark.parametrize(
    ("one", "other"),
    [("a:{x}", "b:{x}"), ("a:{x}", "a:{x}:{y}"), ("a:{x=b|c}", "a:{x=d}"), ("a:x{y}", "a:z{y}"), ("a:{x}y", "a:{x}z")],
)
def test_templates_apart(one: str, other: str) -> None:
    """Templates without a common key do not overlap, either way round."""
    assert not templates_overlap(parse_template(one), parse_template(other))
    assert not templates_overlap(parse_template(other), parse_template(one))


def test_overlap_errs_towards_yes() -> None:
    """No key matches two random templates that were said not to overlap, and two never narrow each other."""
    met = 0
    for seed in range(4_000):
        rnd = random.Random(seed)
        one, other = _random_template(rnd), _random_template(rnd)
        key = _random_key(rnd, one)

        assert one.match(key) is not None
        assert not (one.narrows(other) and other.narrows(one))
        if other.match(key) is not None:
            met += 1
            assert templates_overlap(one, other), (one.text, other.text, key)
    assert 100 < met


def test_clashes_are_those_of_all_pairs() -> None:
    """Comparing only within the same first segment finds what comparing every pair finds, in the same order."""
    found = 0
    for seed in range(300):
        rnd = random.Random(seed)
        templates = [_random_template(rnd) for _ in range(12)]
        pairs = [
            (place, rival)
            for place, one in enumerate(templates)
            for rival, other in enumerate(templates[:place])
            if one.text == other.text
            or (templates_overlap(one, other) and not one.narrows(other) and not other.narrows(one))
        ]

        assert list(clashing_templates(templates)) == pairs
        found += len(pairs)
    assert 100 < found


def test_many_prefixes_are_not_compared_with_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five thousand kinds of keys are no twelve million comparisons."""
    compared: list[KeyTemplate] = []

    def compare(one: KeyTemplate, other: KeyTemplate) -> bool:
        compared.extend((one, other))
        return False

    monkeypatch.setattr("kvmigrate.transform.keys.template_overlap.templates_overlap", compare)

    assert not list(clashing_templates([parse_template(f"kind{number}:{{id}}") for number in range(5_000)]))
    assert not compared


def _random_template(rnd: random.Random) -> KeyTemplate:
    names = iter("ABCDEF")
    text = ":".join(rnd.choice(_SEGMENTS) for _ in range(rnd.randint(1, 3)))
    return parse_template(re.sub(r"\{x", lambda _: "{" + next(names), text))


def _random_key(rnd: random.Random, template: KeyTemplate) -> str:
    return "".join(part if isinstance(part, str) else _random_text(rnd, part) for part in template.parts)


def _random_text(rnd: random.Random, capture: Capture) -> str:
    if capture.choices:
        return rnd.choice(capture.choices)
    texts = ["7", "-1", ID, "a", "b", "ab", "aab", "", "a:b", ":", "b:a:7"]
    return rnd.choice([text for text in texts if re.fullmatch(capture.regex, text)])
