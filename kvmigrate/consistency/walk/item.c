/* One item and its rows: each member is in the column that is to have it, and every row is one of an element. */
#include "walk.h"

typedef struct {
    Program *program;
    Page *page;
    int item;
    int64_t steps; /* left for finding rows that stand in another order */
    Scan scan;
} Walk;

typedef struct {
    int64_t ordinal; /* -1 for a member of a map */
    Text name;
} Place;

static Answer same_node(Walk *walk, int table, int node, int depth);

static int same_bytes(const Text *one, const Text *other)
{
    if (one->at == NULL || other->at == NULL)
        return one->at == other->at;
    return one->size == other->size && memcmp(one->at, other->at, one->size) == 0;
}

static const Text *capture_of(const Walk *walk, const Column *column)
{
    return &walk->page->captures[walk->item * walk->page->capture_count + column->source];
}

/* All columns but those of members. */
static int has_right_columns(const Walk *walk, const Table *table)
{
    for (int n = 0; n < table->columns; n++) {
        const Column *column = &table->column[n];
        const Text *stored = &table->fields[n];
        int same = 1;
        switch (column->role) {
        case OF_KEY:
            same = same_capture(column, capture_of(walk, column), stored) == YES;
            break;
        case OF_PARENT:
            same = same_bytes(stored, &walk->program->tables[table->parent].fields[column->source]);
            break;
        case OF_TENANT:
            same = same_bytes(stored, &walk->program->tables[0].fields[column->source]);
            break;
        case OF_NOTHING: /* asked for as whether there is anything */
            same = stored->at != NULL && stored->size == 1 && stored->at[0] == 0;
            break;
        default:
            break;
        }
        if (!same)
            return 0;
    }
    return 1;
}

/* Whether columns without a member are NULL, and may be. */
static int is_empty_else(const Table *table, uint64_t serial)
{
    for (int n = 0; n < table->columns; n++) {
        const Column *column = &table->column[n];
        if (column->seen == serial)
            continue;
        if (column->role == OF_MEMBER && (table->fields[n].at != NULL || !column->nullable))
            return 0;
        /* A member that repeats the key: without it rest would say so. */
        if (column->role == OF_KEY && !column->nullable)
            return 0;
    }
    return 1;
}

static int is_at(const Table *table, const Place *place)
{
    const Text *stored = &table->fields[table->place];
    int64_t ordinal;
    if (stored->at == NULL)
        return 0;
    if (place->ordinal >= 0)
        return stored_number(stored, &ordinal) && ordinal == place->ordinal;
    return same_bytes(stored, &place->name);
}

/* Find the row of an element among those of the item, from *next* on, and read its columns. */
static int find_row(Walk *walk, int number, const Place *place, int *next)
{
    const Table *table = &walk->program->tables[number];
    Rows *rows = &walk->page->rows[number];
    int at = *next;
    for (int count = rows->counts[walk->item]; count > 0; count--) {
        if (at < 0)
            at = rows->first[walk->item];
        Row *row = &rows->rows[at];
        if (--walk->steps < 0)
            return 0;
        if (!row->met && read_fields(walk->program, table, row) && is_at(table, place) &&
            has_right_columns(walk, table)) {
            row->met = 1;
            *next = row->next;
            return 1;
        }
        at = row->next;
    }
    return 0;
}

static Answer same_element(Walk *walk, int number, const Place *place, int *next, int depth)
{
    Table *table = &walk->program->tables[number];
    if (!find_row(walk, number, place, next))
        return NO;
    uint64_t serial = ++walk->program->serial;
    if (table->whole < 0)
        return same_node(walk, number, table->node, depth + 1);
    table->column[table->whole].seen = serial;
    if (!is_empty_else(table, serial))
        return NO;
    return same_value(&walk->scan, &table->column[table->whole], &table->fields[table->whole], &walk->program->work);
}

static Answer same_children(Walk *walk, int number, int is_map, int depth)
{
    Scan *scan = &walk->scan;
    Byte closing = is_map ? '}' : ']';
    int next = walk->page->rows[number].counts[walk->item] ? walk->page->rows[number].first[walk->item] : -1;
    if (!take(scan, is_map ? '{' : '['))
        return NO;
    for (int64_t ordinal = 0;; ordinal++) {
        Place place = {is_map ? -1 : ordinal, {NULL, 0, 0}};
        if (is_map && (!take_name(scan, &place.name) || place.name.escaped))
            return NO;
        skip_space(scan);
        Answer same = same_element(walk, number, &place, &next, depth);
        if (same != YES)
            return same;
        skip_space(scan);
        if (take(scan, ','))
            continue;
        return take(scan, closing) ? YES : NO;
    }
}

static Answer repeats_key(Walk *walk, const Column *column)
{
    const Text *capture = capture_of(walk, column);
    Text text;
    Decimal number;
    if (capture->at == NULL)
        return NO;
    if (column->kind != INTEGER)
        return take_text(&walk->scan, &text) ? says(&text, capture->at, capture->size, &walk->program->work.scratch)
                                             : NO;
    return take_decimal(&walk->scan, &number, &text) && same_bytes(&text, capture) ? YES : NO;
}

static Answer same_member(Walk *walk, const Table *table, const Member *member, uint64_t serial, int depth)
{
    if (member->target == TO_LIST || member->target == TO_MAP)
        return same_children(walk, member->number, member->target == TO_MAP, depth);
    Column *column = &table->column[member->number];
    column->seen = serial;
    if (member->target == TO_KEY)
        return repeats_key(walk, column);
    return same_value(&walk->scan, column, &table->fields[member->number], &walk->program->work);
}

/* The member with this name; most stand in the order of the mapping. */
static Member *member_of(const Node *node, const Text *name, int from)
{
    for (int step = 0; step < node->count; step++) {
        int at = from + step < node->count ? from + step : from + step - node->count;
        Member *member = &node->members[at];
        if (member->size == name->size && memcmp(member->name, name->at, name->size) == 0)
            return member;
    }
    return NULL;
}

/* An object, of which no member may be unknown or stand twice. One without any is told by rest alone. */
static Answer same_members(Walk *walk, int number, int node_number, uint64_t serial, int depth)
{
    Node *node = &walk->program->nodes[node_number];
    uint64_t own = ++walk->program->serial;
    int next = 0;
    for (;;) {
        Text name;
        if (!take_name(&walk->scan, &name) || name.escaped)
            return NO;
        Member *member = member_of(node, &name, next);
        if (member == NULL || member->seen == own)
            return NO;
        member->seen = own;
        next = (int)(member - node->members) + 1;
        next = next < node->count ? next : 0;
        Answer same;
        if (member->target != TO_OBJECT)
            same = same_member(walk, &walk->program->tables[number], member, serial, depth);
        else
            same = take(&walk->scan, '{') ? same_members(walk, number, member->number, serial, depth + 1) : NO;
        if (same != YES)
            return same;
        skip_space(&walk->scan);
        if (take(&walk->scan, ','))
            continue;
        return take(&walk->scan, '}') ? YES : NO;
    }
}

/* An element, whose row is read. */
static Answer same_node(Walk *walk, int number, int node, int depth)
{
    uint64_t serial = ++walk->program->serial;
    if (depth >= MAX_DEPTH || !take(&walk->scan, '{'))
        return NO;
    skip_space(&walk->scan);
    if (!take(&walk->scan, '}')) {
        Answer same = same_members(walk, number, node, serial, depth);
        if (same != YES)
            return same;
    }
    return is_empty_else(&walk->program->tables[number], serial) ? YES : NO;
}

Answer same_item(Program *program, Page *page, int item, const Byte *text, size_t size)
{
    Walk walk = {program, page, item, MIN_STEPS, {text, text + size}};
    if (page->strays)
        return NO;
    program->work.steps = MAX_STEPS;
    for (int table = 0; table < program->table_count; table++) {
        int count = page->rows[table].counts[item];
        walk.steps += 64 * (int64_t)count;
        if (table == 0 && count != 1)
            return NO;
    }
    Row *root = &page->rows[0].rows[page->rows[0].first[item]];
    if (!read_fields(program, &program->tables[0], root) || !has_right_columns(&walk, &program->tables[0]))
        return NO;
    skip_space(&walk.scan);
    Answer same = same_node(&walk, 0, program->tables[0].node, 0);
    if (same != YES)
        return same;
    skip_space(&walk.scan);
    if (walk.scan.at != walk.scan.end)
        return NO;
    for (int table = 1; table < program->table_count; table++) {
        const Rows *rows = &page->rows[table];
        int at = rows->counts[item] ? rows->first[item] : -1;
        for (; at >= 0; at = rows->rows[at].next)
            if (!rows->rows[at].met)
                return NO;
    }
    return YES;
}
