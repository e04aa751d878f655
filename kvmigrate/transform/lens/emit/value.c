/* The JSON value under the scan into a field of a column. Null is nobody's but an array's. */
#include "emit.h"

static Verdict slot_enum(Slot *slot, const Text *text, const Column *column)
{
    for (int n = 0; n < column->choice_count; n++) {
        const Choice *choice = &column->choices[n];
        if (choice->size == text->size && memcmp(choice->start, text->start, text->size) == 0) {
            slot->state = POINTED_TEXT;
            slot->start = text->start;
            slot->size = (uint32_t)text->size;
            return MINE;
        }
    }
    return NOT_MINE;
}

static Verdict slot_jsonb(Slot *slot, Scan *scan)
{
    const Byte *start = scan->at;
    if (next_is(scan, 'n') || !skip_value(scan))
        return NOT_MINE;
    size_t size = (size_t)(scan->at - start);
    if (size > MAX_TEXT_BYTES || is_odd_json(start, size))
        return NOT_MINE;
    slot->state = POINTED_JSONB;
    slot->start = start;
    slot->size = (uint32_t)size;
    return MINE;
}

static Verdict slot_boolean(Slot *slot, Scan *scan)
{
    int value = next_is(scan, 't');
    if (!take_word(scan, value ? "true" : "false"))
        return NOT_MINE;
    *slot_inline(slot, 1) = (Byte)value;
    return MINE;
}

static Verdict slot_string(Slot *slot, const Column *column, Scan *scan, Buffer *arena)
{
    Text text;
    if (!scan_text(scan, &text))
        return NOT_MINE;
    switch (column->kind) {
    case TEXT:
        return slot_text(slot, &text, arena);
    case UUID:
        return slot_uuid(slot, &text) ? MINE : NOT_MINE;
    case DATE:
        return slot_date(slot, &text) ? MINE : NOT_MINE;
    case TIME:
        return slot_time(slot, &text) ? MINE : NOT_MINE;
    case ISO:
        return slot_iso(slot, &text) ? MINE : NOT_MINE;
    case ENUM:
        return text.escaped ? NOT_MINE : slot_enum(slot, &text, column);
    default:
        return slot_bytes(slot, &text, column->kind, arena);
    }
}

static Verdict slot_number(Slot *slot, const Column *column, Scan *scan, Buffer *arena)
{
    Number number;
    int64_t value;
    if (!scan_number(scan, &number))
        return NOT_MINE;
    switch (column->kind) {
    case NUMERIC:
        return slot_numeric(slot, &number, column, arena);
    case REAL:
    case DOUBLE:
        return slot_float(slot, &number, column->kind) ? MINE : NOT_MINE;
    case EPOCH:
        return parse_integer(&number, &value) && slot_epoch(slot, value, column->factor) ? MINE : NOT_MINE;
    default:
        return parse_integer(&number, &value) && slot_integer(slot, value, column->kind) ? MINE : NOT_MINE;
    }
}

Verdict slot_scalar(Slot *slot, const Column *column, Scan *scan, Buffer *arena)
{
    switch (column->kind) {
    case JSONB:
        return slot_jsonb(slot, scan);
    case BOOLEAN:
        return slot_boolean(slot, scan);
    case SMALLINT:
    case INTEGER:
    case BIGINT:
    case NUMERIC:
    case REAL:
    case DOUBLE:
    case EPOCH:
        return slot_number(slot, column, scan, arena);
    default:
        return slot_string(slot, column, scan, arena);
    }
}

/* Add one element to the array that the arena ends with. */
static Verdict add_element(const Column *column, Scan *scan, Buffer *arena, int *nulls)
{
    Slot slot = {.state = SQL_NULL};
    if (next_is(scan, 'n')) {
        /* The Python way takes no null in an array of texts for usual. */
        if (column->kind == TEXT || !take_word(scan, "null"))
            return NOT_MINE;
        *nulls = 1;
    } else {
        Verdict found = slot_scalar(&slot, column, scan, arena);
        if (found != MINE)
            return found;
    }
    /* What went into the arena stands already where it should. */
    return slot.state == IN_ARENA || slot_write(&slot, arena, arena) ? MINE : FAILED;
}

/* One dimension: count of dimensions, whether there are nulls, type of elements, count, first index. */
static Verdict slot_array(Slot *slot, const Column *column, Scan *scan, Buffer *arena)
{
    enum { HEAD = 24, HEAD_OF_EMPTY = 16 };
    size_t offset = arena->size;
    uint32_t count = 0;
    int nulls = 0;
    if (!take(scan, '['))
        return NOT_MINE;
    if (!buffer_reserve(arena, HEAD))
        return FAILED;
    memset(arena->data + offset, 0, HEAD);
    arena->size += HEAD;
    skip_space(scan);
    if (!take(scan, ']')) {
        do {
            if (++count > MAX_ELEMENTS)
                return NOT_MINE;
            skip_space(scan);
            Verdict found = add_element(column, scan, arena, &nulls);
            if (found != MINE)
                return found;
            skip_space(scan);
        } while (take(scan, ','));
        if (!take(scan, ']'))
            return NOT_MINE;
    } else {
        arena->size = offset + HEAD_OF_EMPTY;
    }
    size_t size = arena->size - offset;
    if (size > MAX_GROWTH)
        return NOT_MINE;
    Byte *at = arena->data + offset;
    put_32(at, (uint32_t)size - 4);
    put_32(at + 4, count > 0);
    put_32(at + 8, (uint32_t)nulls);
    put_32(at + 12, column->oid);
    if (count) {
        put_32(at + 16, count);
        put_32(at + 20, 1);
    }
    slot->state = IN_ARENA;
    slot->offset = offset;
    slot->size = (uint32_t)size;
    return MINE;
}

Verdict slot_value(Slot *slot, const Column *column, Scan *scan, Buffer *arena)
{
    return column->array ? slot_array(slot, column, scan, arena) : slot_scalar(slot, column, scan, arena);
}
