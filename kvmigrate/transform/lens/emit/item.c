/* One item through its program: one pass over its bytes, a row for its root and one per element. */
#include "emit.h"

static Verdict read_object(Run *run, int table, int node, Scan *scan);

int run_start(Run *run, const Program *program, int staged)
{
    size_t tables = (size_t)program->table_count;
    memset(run, 0, sizeof(*run));
    run->program = program;
    run->staged = staged;
    run->slots = PyMem_RawCalloc((size_t)program->column_count, sizeof(Slot));
    run->seen = PyMem_RawCalloc((size_t)program->member_count + 1, sizeof(uint64_t));
    run->deferred = PyMem_RawCalloc(tables, sizeof(Byte *));
    run->out = PyMem_RawCalloc(tables, sizeof(Buffer));
    run->rows = PyMem_RawCalloc(tables, sizeof(Py_ssize_t));
    run->size_marks = PyMem_RawCalloc(tables, sizeof(size_t));
    run->row_marks = PyMem_RawCalloc(tables, sizeof(Py_ssize_t));
    run->rests = PyMem_RawCalloc(tables, sizeof(Rest));
    return run->slots && run->seen && run->deferred && run->out && run->rows && run->size_marks && run->row_marks &&
           run->rests;
}

void run_end(Run *run)
{
    if (run->program != NULL && run->out != NULL)
        for (int n = 0; n < run->program->table_count; n++)
            PyMem_RawFree(run->out[n].data);
    if (run->program != NULL && run->rests != NULL)
        for (int n = 0; n < run->program->table_count; n++)
            PyMem_RawFree(run->rests[n].text.data);
    PyMem_RawFree(run->rests);
    PyMem_RawFree(run->spare.data);
    PyMem_RawFree(run->slots);
    PyMem_RawFree(run->seen);
    PyMem_RawFree(run->deferred);
    PyMem_RawFree(run->out);
    PyMem_RawFree(run->rows);
    PyMem_RawFree(run->size_marks);
    PyMem_RawFree(run->row_marks);
    PyMem_RawFree(run->arena.data);
    memset(run, 0, sizeof(*run));
}

static Slot *slots_of(const Run *run, int table)
{
    return run->slots + run->program->tables[table].first_column;
}

static const Column *columns_of(const Run *run, int table)
{
    return run->program->columns + run->program->tables[table].first_column;
}

static void forget_members(Run *run, int table)
{
    const Column *columns = columns_of(run, table);
    Slot *slots = slots_of(run, table);
    for (int n = 0; n < run->program->tables[table].columns; n++)
        if (columns[n].source == FROM_MEMBER)
            slots[n].state = UNSET;
}

static Verdict write_row(Run *run, int table)
{
    const Table *plan = &run->program->tables[table];
    const Column *columns = columns_of(run, table);
    const Slot *slots = slots_of(run, table);
    Buffer *out = &run->out[table];
    Byte head[10];
    if (run->rests[table].count) {
        Verdict found = rest_end(&run->rests[table], slots_of(run, table) + plan->rest, &run->arena);
        if (found != MINE)
            return found;
    }
    put_16(head, (uint32_t)(plan->columns + run->staged));
    put_32(head + 2, 4);
    put_32(head + 6, (uint32_t)run->ordinal);
    if (!buffer_add(out, head, run->staged ? sizeof(head) : 2))
        return FAILED;
    for (int n = 0; n < plan->columns; n++) {
        if (columns[n].required && slots[n].state <= SQL_NULL)
            return NOT_MINE;
        if (!slot_write(&slots[n], out, &run->arena))
            return FAILED;
    }
    run->rows[table]++;
    return out->size - run->size_marks[table] > MAX_GROWTH ? NOT_MINE : MINE;
}

/* Whether an unescaped text, or what an escaped one spells, is this. */
static Verdict text_is(Run *run, const Text *text, const void *wanted, size_t size)
{
    if (!text->escaped)
        return text->size == size && memcmp(text->start, wanted, size) == 0 ? MINE : NOT_MINE;
    size_t offset = run->arena.size;
    if (!unescape(text, &run->arena))
        return FAILED;
    int same = run->arena.size - offset == size && (size == 0 || memcmp(run->arena.data + offset, wanted, size) == 0);
    run->arena.size = offset;
    return same ? MINE : NOT_MINE;
}

/* The member whose name is next, NULL for one that no column takes. Most often it is the one behind the last one. */
static Verdict find_member(Run *run, const Node *node, Scan *scan, int *next, const Member **found, Text *name)
{
    const Member *members = run->program->members + node->first;
    if (*next < node->count) {
        const Member *member = &members[*next];
        size_t size = member->size;
        if ((size_t)(scan->end - scan->at) >= size + 2 && scan->at[0] == '"' && scan->at[size + 1] == '"' &&
            memcmp(scan->at + 1, member->name, size) == 0) {
            scan->at += size + 2;
            ++*next;
            *found = member;
            return MINE;
        }
    }
    if (!scan_text(scan, name))
        return NOT_MINE;
    for (int tried = 0, n = *next; tried < node->count; tried++, n++) {
        if (n >= node->count)
            n = 0;
        Verdict same = text_is(run, name, members[n].name, members[n].size);
        if (same == NOT_MINE)
            continue;
        *next = n + 1;
        *found = &members[n];
        return same;
    }
    *found = NULL;
    return run->exact ? MINE : NOT_MINE;
}

/* Keep a member that no column takes, or a null that one takes. */
static Verdict keep_member(Run *run, int table, const Text *name, Scan *scan)
{
    Rest *rest = &run->rests[table];
    if (run->program->tables[table].rest < 0)
        return NOT_MINE;
    Verdict found = rest_add_name(rest, name);
    run->kept++;
    return found == MINE ? add_json(scan, &rest->text, &run->spare, MAX_REST_DEPTH) : found;
}

/* A member of an odd item. Types that the Python way reads by other rules than those of plain items are not ours. */
static Verdict read_exactly(Run *run, int table, const Member *member, Scan *scan)
{
    const Column *column = columns_of(run, table) + member->number;
    Slot *slot = slots_of(run, table) + member->number;
    Scan ahead = *scan;
    Number number;
    if (next_is(scan, 'n')) {
        Text name = {(const Byte *)member->name, member->size, 0};
        slot->state = SQL_NULL;
        return keep_member(run, table, &name, scan);
    }
    if (column->array)
        return column->kind == TEXT ? slot_value(slot, column, scan, &run->arena) : NOT_MINE;
    switch (column->kind) {
    case JSONB:
        return slot_written_jsonb(slot, scan, &run->arena, &run->spare);
    case NUMERIC:
        if (!scan_number(&ahead, &number) || !is_plain_number(&number))
            return NOT_MINE;
        return slot_value(slot, column, scan, &run->arena);
    case TEXT:
    case BOOLEAN:
    case SMALLINT:
    case INTEGER:
    case BIGINT:
    case UUID:
    case ISO:
    case EPOCH:
    case ENUM:
        return slot_value(slot, column, scan, &run->arena);
    default:
        return NOT_MINE;
    }
}

/* A member that says again what the key says; spelt otherwise it is not ours. */
static Verdict read_repeated(Run *run, int number, Scan *scan)
{
    const Column *column = columns_of(run, 0) + number;
    const Text *capture = &run->captures[column->source_arg];
    run->repeated_keys++;
    if (column->kind == TEXT || column->kind == UUID) {
        Text text;
        return scan_text(scan, &text) ? text_is(run, &text, capture->start, capture->size) : NOT_MINE;
    }
    Number said;
    int same = scan_number(scan, &said) && said.size == capture->size &&
               memcmp(said.start, capture->start, said.size) == 0;
    return same ? MINE : NOT_MINE;
}

/* Whether all that a child copies of its parent's row is known. */
static int is_ready(const Run *run, int child)
{
    const Table *plan = &run->program->tables[child];
    const Column *columns = columns_of(run, child);
    const Slot *parent = slots_of(run, plan->parent);
    for (int n = 0; n < plan->columns; n++)
        if (columns[n].source == FROM_PARENT && parent[columns[n].source_arg].state == UNSET)
            return 0;
    return 1;
}

static Verdict start_rows(Run *run, int child)
{
    const Table *plan = &run->program->tables[child];
    const Column *columns = columns_of(run, child);
    const Slot *parent = slots_of(run, plan->parent);
    Slot *slots = slots_of(run, child);
    for (int n = 0; n < plan->columns; n++) {
        if (columns[n].source == FROM_PARENT)
            slots[n] = parent[columns[n].source_arg];
        else if (columns[n].source != FROM_MEMBER)
            slots[n].state = SQL_NULL;
        if (columns[n].source == FROM_PARENT && columns[n].required && slots[n].state <= SQL_NULL)
            return NOT_MINE;
    }
    return MINE;
}

static Verdict read_element(Run *run, int child, int64_t place, Scan *scan)
{
    const Table *plan = &run->program->tables[child];
    const Column *columns = columns_of(run, child);
    Slot *slots = slots_of(run, child);
    Verdict found;
    forget_members(run, child);
    for (int n = 0; n < plan->columns; n++)
        if (columns[n].source == FROM_ORDINAL && !slot_integer(&slots[n], place, columns[n].kind))
            return NOT_MINE;
    if (plan->whole >= 0)
        /* Elements that are values are read exactly by rules of their own. */
        found = run->exact ? NOT_MINE : slot_value(&slots[plan->whole], &columns[plan->whole], scan, &run->arena);
    else
        found = read_object(run, child, plan->node, scan);
    return found == MINE ? write_row(run, child) : found;
}

/* An array with elements, each a row. An empty one stays in rest. */
static Verdict read_rows(Run *run, int child, Scan *scan)
{
    int64_t place = 0;
    Verdict found = start_rows(run, child);
    if (found != MINE)
        return found;
    if (!take(scan, '['))
        return NOT_MINE;
    do {
        if (place >= MAX_ELEMENTS)
            return NOT_MINE;
        skip_space(scan);
        found = read_element(run, child, place++, scan);
        if (found != MINE)
            return found;
        skip_space(scan);
    } while (take(scan, ','));
    return take(scan, ']') ? MINE : NOT_MINE;
}

static Verdict read_child(Run *run, int child, Scan *scan)
{
    if (is_ready(run, child))
        return read_rows(run, child, scan);
    run->deferred[child] = scan->at;
    return skip_value(scan) ? MINE : NOT_MINE;
}

static Verdict read_member(Run *run, int table, const Member *member, Scan *scan)
{
    Slot *slot = slots_of(run, table) + member->number;
    switch (member->target) {
    case TO_KEY:
        return read_repeated(run, member->number, scan);
    case TO_OBJECT:
        return read_object(run, table, member->number, scan);
    case TO_CHILD:
        return read_child(run, member->number, scan);
    default:
        return run->exact ? read_exactly(run, table, member, scan)
                          : slot_value(slot, columns_of(run, table) + member->number, scan, &run->arena);
    }
}

/* Read the arrays that wanted to know their parent's columns first. */
static Verdict read_deferred(Run *run, const Node *node, const Byte *end)
{
    const Member *members = run->program->members + node->first;
    for (int n = 0; n < node->count; n++) {
        if (members[n].target != TO_CHILD || run->deferred[members[n].number] == NULL)
            continue;
        Scan scan = {run->deferred[members[n].number], end};
        run->deferred[members[n].number] = NULL;
        Verdict found = read_rows(run, members[n].number, &scan);
        if (found != MINE)
            return found;
    }
    return MINE;
}

static Verdict read_members(Run *run, int table, const Node *node, Scan *scan, int inner)
{
    uint64_t stamp = ++run->stamp;
    int next = 0;
    do {
        const Member *member = NULL;
        Text name;
        skip_space(scan);
        Verdict found = find_member(run, node, scan, &next, &member, &name);
        if (found != MINE)
            return found;
        skip_space(scan);
        if (!take(scan, ':'))
            return NOT_MINE;
        skip_space(scan);
        if (member == NULL) {
            found = inner ? NOT_MINE : keep_member(run, table, &name, scan);
            if (found != MINE)
                return found;
            skip_space(scan);
            continue;
        }
        /* Of a member that stands twice the last one counts: that is for the others to sort out. */
        uint64_t *seen = &run->seen[member - run->program->members];
        if (*seen == stamp)
            return NOT_MINE;
        *seen = stamp;
        if (inner && run->exact && next_is(scan, 'n'))
            return NOT_MINE;
        found = read_member(run, table, member, scan);
        if (found != MINE)
            return found;
        skip_space(scan);
    } while (take(scan, ','));
    return take(scan, '}') ? MINE : NOT_MINE;
}

static Verdict read_object(Run *run, int table, int number, Scan *scan)
{
    const Node *node = &run->program->nodes[number];
    int inner = number != run->program->tables[table].node;
    if (!take(scan, '{') || ++run->depth > MAX_DEPTH)
        return NOT_MINE;
    if (!inner)
        rest_begin(&run->rests[table]);
    if (!inner && run->program->tables[table].rest >= 0)
        slots_of(run, table)[run->program->tables[table].rest].state = SQL_NULL;
    if (!inner)
        for (int n = 0; n < node->count; n++)
            if (run->program->members[node->first + n].target == TO_CHILD)
                run->deferred[run->program->members[node->first + n].number] = NULL;
    skip_space(scan);
    /* An inner object without any mapped member stays in rest. */
    Verdict found = !take(scan, '}') ? read_members(run, table, node, scan, inner) : inner ? NOT_MINE : MINE;
    run->depth--;
    if (found != MINE || inner)
        return found;
    return read_deferred(run, node, scan->end);
}

static int slot_capture(Slot *slot, const Text *capture, Kind kind)
{
    Scan scan = {capture->start, capture->start + capture->size};
    Number number;
    int64_t value;
    if (kind == TEXT)
        return slot_text(slot, capture, NULL) == MINE;
    if (kind == UUID)
        return slot_uuid(slot, capture);
    return scan_number(&scan, &number) && scan.at == scan.end && parse_integer(&number, &value) &&
           slot_integer(slot, value, kind);
}

/* The columns of the root that need no member. */
static Verdict start_item(Run *run, const Incoming *item)
{
    const int64_t last_ms = INT64_C(253402300799999);
    const Column *columns = columns_of(run, 0);
    Slot *slots = slots_of(run, 0);
    for (int n = 0; n < run->program->tables[0].columns; n++) {
        Slot *slot = &slots[n];
        slot->state = SQL_NULL;
        if (columns[n].source == FROM_MEMBER) {
            slot->state = UNSET;
        } else if (columns[n].source == FROM_KEY) {
            if (!slot_capture(slot, &run->captures[columns[n].source_arg], columns[n].kind))
                return NOT_MINE;
        } else if (columns[n].source == FROM_ADDRESS && (run->program->owned || !item->derived)) {
            if (slot_text(slot, &item->address, NULL) != MINE)
                return NOT_MINE;
        } else if (columns[n].source == FROM_EXPIRY && item->expires) {
            if (item->expires_at_ms < 0 || item->expires_at_ms > last_ms ||
                !slot_epoch(slot, item->expires_at_ms, 1))
                return NOT_MINE;
        }
    }
    return MINE;
}

static Verdict read_item(Run *run, const Incoming *item)
{
    Scan scan = {item->data, item->data + item->size};
    if (item->size > MAX_ITEM_BYTES)
        return NOT_MINE;
    Verdict found = start_item(run, item);
    if (found != MINE)
        return found;
    skip_space(&scan);
    found = read_object(run, 0, run->program->tables[0].node, &scan);
    if (found != MINE)
        return found;
    skip_space(&scan);
    if (scan.at != scan.end || run->repeated_keys != run->program->repeated_keys)
        return NOT_MINE;
    return write_row(run, 0);
}

static Verdict try_way(Run *run, const Incoming *item, int exact)
{
    int tables = run->program->table_count;
    run->arena.size = run->spare.size = 0;
    run->ordinal = item->ordinal;
    run->repeated_keys = run->depth = run->kept = 0;
    run->exact = exact;
    for (int n = 0; n < tables; n++) {
        run->size_marks[n] = run->out[n].size;
        run->row_marks[n] = run->rows[n];
        run->rests[n].mark = run->rests[n].bytes;
        run->rests[n].count = 0;
    }
    Verdict found = read_item(run, item);
    /* Nothing is kept of it: then it is odd in a way that only Python knows. */
    if (found == MINE && exact && run->kept == 0)
        found = NOT_MINE;
    if (found != MINE)
        for (int n = 0; n < tables; n++) {
            run->out[n].size = run->size_marks[n];
            run->rows[n] = run->row_marks[n];
            run->rests[n].bytes = run->rests[n].mark;
        }
    return found;
}

/* Add the item's rows, all of them or none. Its captures stand in the run. */
Verdict run_item(Run *run, const Incoming *item)
{
    Verdict found = try_way(run, item, 0);
    return found == NOT_MINE && run->program->tables[0].rest >= 0 ? try_way(run, item, 1) : found;
}
