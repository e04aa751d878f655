"""Nobody is deleted before whoever refers to it."""

from hypothesis import given
from hypothesis import strategies as st

from kvmigrate.target.order_of_removal import referrers_first

_KEYS = st.sampled_from("abcdefgh")


def test_a_chain_longer_than_any_recursion() -> None:
    """Its end comes first."""
    keys = [str(number) for number in range(50_000)]

    found = referrers_first(keys, {str(number): {str(number - 1)} for number in range(1, 50_000)})

    assert [[key] for key in reversed(keys)] == found


def test_a_circle_is_one_group() -> None:
    """Before whom it refers to, behind who refers to it; strangers do not count."""
    parents = {"in": {"a"}, "a": {"b"}, "b": {"c", "out"}, "c": {"a", "stranger"}}

    found = [sorted(group) for group in referrers_first(["out", "a", "b", "c", "in", "alone"], parents)]

    assert [["a", "b", "c"], ["alone"], ["in"], ["out"]] == sorted(found)
    assert found.index(["in"]) < found.index(["a", "b", "c"]) < found.index(["out"])


@given(st.sets(_KEYS), st.dictionaries(_KEYS, st.sets(_KEYS)))
def test_every_item_is_once_behind_its_referrers(items: set[str], parents: dict[str, set[str]]) -> None:
    """In a group before its own, or in it."""
    groups = referrers_first(sorted(items), parents)

    assert sorted(items) == sorted(key for group in groups for key in group)
    place = {key: number for number, group in enumerate(groups) for key in group}
    assert all(place[key] <= place[each] for key in items for each in parents.get(key, set()) & items)
    for group in groups:
        reached, ahead = {group[0]}, [group[0]]
        while ahead:
            new = (parents.get(ahead.pop(), set()) & set(group)) - reached
            reached |= new
            ahead += new
        assert set(group) == reached
