/* Two JSON texts that say the same value: numbers by what they are worth, members in any order. */
#include "walk.h"

static int add_entry(Work *work, const Entry *entry)
{
    if (work->held == work->room) {
        size_t room = work->room ? work->room * 2 : 64;
        Entry *entries = PyMem_Realloc(work->entries, room * sizeof(Entry));
        if (entries == NULL) {
            PyErr_NoMemory();
            return 0;
        }
        work->entries = entries;
        work->room = room;
    }
    work->entries[work->held++] = *entry;
    return 1;
}

/* Note the members of a stored object, and pass it by. */
static Answer note_entries(Scan *stored, Work *work)
{
    size_t base = work->held;
    for (;;) {
        Entry entry = {.met = 0};
        if (work->held - base == MAX_MEMBERS || !take_name(stored, &entry.name))
            return NO;
        entry.value = stored->at;
        if (!add_entry(work, &entry))
            return FAILED;
        if (!skip_value(stored))
            return NO;
        skip_space(stored);
        if (take(stored, ','))
            continue;
        return take(stored, '}') ? YES : NO;
    }
}

/* The number of the noted member with this name, from *from* on; -1: there is none, or it was met before. */
static Answer find_entry(Work *work, size_t base, const Text *name, size_t from, size_t *found)
{
    size_t count = work->held - base;
    for (size_t step = 0; step < count; step++) {
        size_t at = from + step < count ? from + step : from + step - count;
        const Text *other = &work->entries[base + at].name;
        /* Names that are escaped are read anew each time. */
        work->steps -= 1 + (int64_t)((name->escaped ? name->size : 0) + (other->escaped ? other->size : 0));
        if (work->steps < 0)
            return NO;
        Answer same = says_same(name, other, &work->scratch, &work->more);
        if (same == FAILED)
            return FAILED;
        if (same == YES) {
            *found = at;
            return work->entries[base + at].met ? NO : YES;
        }
    }
    return NO;
}

static Answer same_members(Scan *mine, Scan *stored, Work *work, size_t base, int depth)
{
    size_t met = 0, next = 0, count = work->held - base;
    for (;;) {
        Text name;
        if (!take_name(mine, &name))
            return NO;
        Answer found = find_entry(work, base, &name, next, &next);
        if (found != YES)
            return found;
        work->entries[base + next].met = 1;
        Scan value = {work->entries[base + next].value, stored->end};
        Answer same = same_document(mine, &value, work, depth + 1);
        if (same != YES)
            return same;
        met++;
        next = next + 1 < count ? next + 1 : 0;
        skip_space(mine);
        if (take(mine, ','))
            continue;
        return take(mine, '}') && met == count ? YES : NO;
    }
}

static Answer same_object(Scan *mine, Scan *stored, Work *work, int depth)
{
    skip_space(mine);
    skip_space(stored);
    int empty = take(mine, '}');
    if (empty || next_is(stored, '}'))
        return empty && take(stored, '}') ? YES : NO;
    size_t base = work->held;
    Answer same = note_entries(stored, work);
    if (same == YES)
        same = same_members(mine, stored, work, base, depth);
    work->held = base;
    return same;
}

static Answer same_list(Scan *mine, Scan *stored, Work *work, int depth)
{
    skip_space(mine);
    skip_space(stored);
    int empty = take(mine, ']');
    if (empty || next_is(stored, ']'))
        return empty && take(stored, ']') ? YES : NO;
    for (;;) {
        Answer same = same_document(mine, stored, work, depth + 1);
        if (same != YES)
            return same;
        skip_space(mine);
        skip_space(stored);
        int more = take(mine, ',');
        if (more != take(stored, ','))
            return NO;
        if (!more)
            return take(mine, ']') && take(stored, ']') ? YES : NO;
    }
}

Answer same_document(Scan *mine, Scan *stored, Work *work, int depth)
{
    static const char *const words[] = {"true", "false", "null"};
    Text text, other;
    Decimal number, rival;
    skip_space(mine);
    skip_space(stored);
    if (depth == MAX_DEPTH)
        return NO;
    if (next_is(mine, '"'))
        return take_text(mine, &text) && take_text(stored, &other)
                   ? says_same(&text, &other, &work->scratch, &work->more)
                   : NO;
    if (take(mine, '{'))
        return take(stored, '{') ? same_object(mine, stored, work, depth) : NO;
    if (take(mine, '['))
        return take(stored, '[') ? same_list(mine, stored, work, depth) : NO;
    for (size_t n = 0; n < 3; n++)
        if (take_word(mine, words[n]))
            return take_word(stored, words[n]) ? YES : NO;
    return take_decimal(mine, &number, &text) && take_decimal(stored, &rival, &other) &&
                   same_decimal(&number, &rival)
               ? YES
               : NO;
}
