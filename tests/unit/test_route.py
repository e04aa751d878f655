"""Where keys belong."""

import random

import pytest

from kvmigrate.model import ADDRESS_SEPARATOR
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.keys.pattern import parse_template
from kvmigrate.transform.keys.route import RouteKind, Router
from kvmigrate.transform.mapping import LeaveInKV, Mapping

MAPPING = """
version: 1
name: routes
entities:
  client:
    keys: ["client:{id}", "clients:{id}"]
    table: clients
    columns: {id: {key: id, type: text}}
  gift:
    keys: ["gift:{id}", "gift:{env=production}:{id}"]
    table: gifts
    columns: {id: {key: id, type: text}}
  profile:
    keys: ["user:{id}:profile"]
    table: profiles
    columns: {id: {key: id, type: text}}
  number:
    keys: ["client:{n=int}"]
    table: numbers
    columns: {n: {key: n, type: integer}}
  twice:
    keys: ["pair:{a}:{b}:{a}"]
    table: pairs
    columns: {a: {key: a, type: text}, b: {key: b, type: text}}
  field:
    keys: [{hash: registry, field: "{id}"}]
    table: fields
    columns: {id: {key: id, type: text}}
pointers:
  - {key: "sites:slug:{slug}", points_to: client, by: id}
leave_in_kv:
  - {key: "session:{token}", reason: short-lived}
"""


@pytest.fixture(scope="module")
def mapping() -> Mapping:
    """A mapping with every kind of route."""
    return load_mapping(MAPPING)


@pytest.mark.parametrize(
    ("key", "kind", "entity", "template"),
    [
        ("client:a", RouteKind.ENTITY, "client", 0),
        ("clients:a", RouteKind.ENTITY, "client", 1),
        ("client:7", RouteKind.ENTITY, "number", 0),
        ("gift:production:1", RouteKind.ENTITY, "gift", 1),
        ("gift:test:1", RouteKind.UNMATCHED, None, 0),
        ("user:1:profile", RouteKind.ENTITY, "profile", 0),
        ("user:1:cart", RouteKind.UNMATCHED, None, 0),
        ("pair:1:2:1", RouteKind.ENTITY, "twice", 0),
        ("pair:1:2:3", RouteKind.UNMATCHED, None, 0),
        (f"registry{ADDRESS_SEPARATOR}a", RouteKind.ENTITY, "field", 0),
        ("registry", RouteKind.UNMATCHED, None, 0),
        ("sites:slug:x", RouteKind.POINTER, None, 0),
        ("session:x", RouteKind.LEFT_IN_KV, None, 0),
        ("session:", RouteKind.UNMATCHED, None, 0),
        ("", RouteKind.UNMATCHED, None, 0),
        (":", RouteKind.UNMATCHED, None, 0),
    ],
)
def test_routes(mapping: Mapping, key: str, kind: RouteKind, entity: str | None, template: int) -> None:
    """Each key has one place; of two patterns the one that constrains more."""
    route = Router(mapping).route(key)

    assert kind is route.kind
    assert entity == (route.entity.name if route.entity else None)
    assert template == route.template
    assert (kind is RouteKind.LEFT_IN_KV) == (route.reason == "short-lived")


def test_a_clash_is_told(mapping: Mapping) -> None:
    """A key of two patterns of which none says more belongs to neither, and both are named."""
    clashing = Mapping(
        "m", "public", mapping.entities, leave_in_kv=(LeaveInKV(parse_template("user:{x}:profile"), "w"),)
    )

    route = Router(clashing).route("user:1:profile")

    assert RouteKind.AMBIGUOUS is route.kind
    assert "'user:{id}:profile' and 'user:{x}:profile'" in route.reason


def test_the_short_way_never_contradicts(mapping: Mapping) -> None:
    """Whatever the bulk path finds at once is what the full search finds, with the same captures."""
    found = 0
    for router in (Router(mapping), Router(_without_fields(mapping)), Router(_with_others(mapping))):
        for seed in range(3_000):
            rnd = random.Random(seed)
            parts = ["client", "clients", "gift", "production", "user", "profile", "pair", "1", "a", "", "session"]
            key = rnd.choice([":", ":", ":", ADDRESS_SEPARATOR]).join(
                rnd.choice(parts) for _ in range(rnd.randint(1, 4))
            )
            short = router.find(key)
            if short is not None:
                candidate, texts = short
                route = router.route(key)
                assert candidate.route == route._replace(captured={})
                assert {name: texts[place] for name, place in candidate.places.items()} == route.captured
                found += 1
        # Templates that may stand for any key take none of the others' keys but those that they match.
        assert 50 < found
        found = 0


def _with_others(mapping: Mapping) -> Mapping:
    texts = ("{x}:profile", "us{x}", "gi{x*}:production", "session", "cl{x}:{y=1|2}")
    others = tuple(LeaveInKV(parse_template(text), "test") for text in texts)
    return Mapping("m", "public", mapping.entities, leave_in_kv=(*mapping.leave_in_kv, *others))


def _without_fields(mapping: Mapping) -> Mapping:
    return Mapping("m", "public", mapping.entities[:1], leave_in_kv=mapping.leave_in_kv)
