"""One item by the compiled emitter and by generated Python: the same bytes, or not the emitter's."""

from unittest import mock

from kvmigrate.model import Item
from kvmigrate.transform.lens import Lens, PageRows, compile_mapping, emitted
from kvmigrate.transform.lens.page import PageBuilder
from kvmigrate.transform.mapping import Mapping


def without_emitter(mapping: Mapping) -> Lens:
    """Return a lens as it is where no compiler was."""
    with mock.patch.object(emitted, "native", None):
        return compile_mapping(mapping)


def emit(lens: Lens, item: Item, ordinal: int = 5, *, staged: bool = True) -> PageRows | None:
    """Return what the emitter makes of an item as one of a group, or ``None`` when it is not the emitter's."""
    found, emitter = lens._router.find(item.key), lens._emitter
    if found is None or emitter is None or found[0].number not in emitter._programs:
        return None
    candidate, captured = found
    builder = PageBuilder(staged=staged)
    with mock.patch.object(emitter, "_routed", frozenset()):
        left = emitter.group([(ordinal, item, captured)], builder, candidate)
    page = builder.finish()
    if not left:
        return page
    assert [(ordinal, item, captured)] == left
    assert PageRows(staged) == page
    return None


def emit_page(lens: Lens, item: Item, *, staged: bool = True) -> PageRows | None:
    """Return what the emitter makes of an item as a page, or ``None`` when it is not the emitter's."""
    builder = PageBuilder(staged=staged)
    if lens._emitter is None or list(lens._emitter.page([item], builder)):
        return None
    return builder.finish()


def plain(lens: Lens, item: Item, ordinal: int = 5, *, staged: bool = True) -> PageRows | None:
    """Return what the generated function for plain items makes of an item, or ``None`` when it is not plain."""
    return generated(lens, item, ordinal, staged=staged, odd=False)


def generated(lens: Lens, item: Item, ordinal: int = 5, *, staged: bool = True, odd: bool = True) -> PageRows | None:
    """Return what the generated functions make of an item, or ``None`` when it takes the exact path."""
    found = lens._router.find(item.key)
    if found is None or found[0].number not in lens._fast:
        return None
    candidate, captured = found
    builder = PageBuilder(staged=staged)
    fast, template, places = lens._fast[candidate.number], candidate.route.template, candidate.places
    left = fast.page([(ordinal, item, captured)], builder, template, places)
    if left and odd and fast.odd is not None:
        left = fast.odd(left, builder, template, places)
    return None if left else builder.finish()


def agrees(lens: Lens, item: Item) -> bool:
    """Return whether the emitter takes the item; whatever it takes is what generated Python makes of it."""
    taken = False
    for staged in (True, False):
        page = emit(lens, item, staged=staged)
        if page is None:
            assert not taken
            assert emit_page(lens, item, staged=staged) is None
            continue
        taken = True
        assert generated(lens, item, staged=staged) == page, item
        alone = emit_page(lens, item, staged=staged)
        assert alone is None or generated(lens, item, 0, staged=staged) == alone, item
    return taken
