/* The rows of a page, and which are of which item.

   A blob is one record behind another, as PostgreSQL sends a record: the count of its columns, then for each
   its type, its size (-1 for NULL) and its bytes. Each begins with the columns that find its item.
*/
#include "walk.h"

static uint32_t read_32(const Byte *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* The next column of a record; at is NULL for NULL. */
static int next_field(const Byte **at, const Byte *end, Text *field)
{
    if (end - *at < 8)
        return 0;
    int32_t size = (int32_t)read_32(*at + 4);
    *at += 8;
    *field = (Text){NULL, 0, 0};
    if (size == -1)
        return 1;
    if (size < 0 || size > end - *at)
        return 0;
    field->at = *at;
    field->size = (size_t)size;
    *at += size;
    return 1;
}

int read_fields(const Program *program, const Table *table, const Row *row)
{
    const Byte *at = row->at;
    Text key;
    for (int n = 0; n < program->key_count; n++)
        if (!next_field(&at, row->end, &key))
            return 0;
    for (int n = 0; n < table->columns; n++)
        if (!next_field(&at, row->end, &table->fields[n]))
            return 0;
    return at == row->end;
}

/* The items of a page by their keys as columns hold them. */
typedef struct {
    Text *forms; /* by item, then by column */
    Byte *room;
    int *slots;
    uint32_t mask;
    int columns;
} Index;

static uint32_t hash_of(const Text *forms, int columns)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (int n = 0; n < columns; n++) {
        for (size_t place = 0; place < forms[n].size; place++)
            hash = (hash ^ forms[n].at[place]) * UINT64_C(0x100000001b3);
        hash = (hash ^ 0xFF) * UINT64_C(0x100000001b3);
    }
    return (uint32_t)(hash ^ hash >> 32);
}

static int same_key(const Text *one, const Text *other, int columns)
{
    for (int n = 0; n < columns; n++)
        if (one[n].size != other[n].size || memcmp(one[n].at, other[n].at, one[n].size) != 0)
            return 0;
    return 1;
}

/* The item with this key; -1: there is none. */
static int item_of(const Index *index, const Text *key)
{
    for (uint32_t slot = hash_of(key, index->columns) & index->mask;; slot = (slot + 1) & index->mask) {
        int item = index->slots[slot];
        if (item < 0 || same_key(key, index->forms + item * index->columns, index->columns))
            return item;
    }
}

static int index_page(const Program *program, const Page *page, Index *index)
{
    uint32_t slots = 64;
    while (slots < 2 * (uint32_t)page->items)
        slots *= 2;
    size_t forms = (size_t)page->items * (size_t)program->key_count + 1;
    index->columns = program->key_count;
    index->mask = slots - 1;
    index->forms = PyMem_Calloc(forms, sizeof(Text));
    index->room = PyMem_Malloc(forms * 16);
    index->slots = PyMem_Malloc(slots * sizeof(int));
    if (index->forms == NULL || index->room == NULL || index->slots == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    memset(index->slots, 0xFF, slots * sizeof(int));
    for (int item = 0; item < page->items; item++) {
        Text *own = index->forms + item * index->columns;
        int good = 1;
        for (int n = 0; n < index->columns; n++) {
            const KeyColumn *key = &program->keys[n];
            Byte *room = index->room + 16 * (size_t)(item * index->columns + n);
            good &= stored_form(key->kind, key->bytes, page->captures + item * page->capture_count + key->capture, room,
                                &own[n]);
        }
        /* Of an item without a key no row is found, and so it does not agree. */
        uint32_t slot = good ? hash_of(own, index->columns) & index->mask : 0;
        while (good && index->slots[slot] >= 0)
            slot = (slot + 1) & index->mask;
        if (good)
            index->slots[slot] = item;
    }
    return 1;
}

static int wrong_rows(void)
{
    PyErr_SetString(PyExc_ValueError, "rows that are no records of this table");
    return 0;
}

static int count_rows(const Byte *at, const Byte *end, int columns, int *count)
{
    Text field;
    for (*count = 0; at < end; ++*count) {
        if (end - at < 4 || read_32(at) != (uint32_t)columns || *count == INT32_MAX / 64)
            return 0;
        at += 4;
        for (int n = 0; n < columns; n++)
            if (!next_field(&at, end, &field))
                return 0;
    }
    return 1;
}

static int share_out(const Program *program, Page *page, const Index *index, const Byte *at, const Byte *end,
                     int columns, Rows *rows)
{
    for (int number = 0; at < end; number++) {
        Row *row = &rows->rows[number];
        Text key[MAX_KEY_COLUMNS], field;
        int whole = 1;
        at += 4;
        row->at = at;
        for (int n = 0; n < columns; n++) {
            if (!next_field(&at, end, &field))
                return wrong_rows();
            if (n < program->key_count) {
                key[n] = field;
                whole &= field.at != NULL;
            }
        }
        row->end = at;
        row->next = -1;
        int item = whole ? item_of(index, key) : -1;
        if (item < 0) {
            page->strays = 1;
            continue;
        }
        if (rows->counts[item]++ == 0)
            rows->first[item] = number;
        else
            rows->rows[rows->last[item]].next = number;
        rows->last[item] = number;
    }
    return 1;
}

static int read_rows(const Program *program, Page *page, const Index *index, int table, PyObject *blob)
{
    Rows *rows = &page->rows[table];
    int columns = program->key_count + program->tables[table].columns;
    size_t room = ((size_t)page->items + 1) * sizeof(int);
    rows->first = PyMem_Malloc(room);
    rows->last = PyMem_Malloc(room);
    rows->counts = PyMem_Calloc(1, room);
    if (rows->first == NULL || rows->last == NULL || rows->counts == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    if (!PyBytes_CheckExact(blob))
        return wrong_rows();
    const Byte *at = (const Byte *)PyBytes_AS_STRING(blob), *end = at + PyBytes_GET_SIZE(blob);
    if (!count_rows(at, end, columns, &rows->count))
        return wrong_rows();
    rows->rows = PyMem_Calloc((size_t)rows->count + 1, sizeof(Row));
    if (rows->rows == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    return share_out(program, page, index, at, end, columns, rows);
}

static int read_captures(const Program *program, PyObject *captured, Page *page)
{
    for (int item = 0; item < page->items; item++) {
        PyObject *names = PyList_GET_ITEM(captured, item);
        if (!PyDict_Check(names)) {
            PyErr_SetString(PyExc_TypeError, "captures that are no dictionary");
            return 0;
        }
        for (int n = 0; n < page->capture_count; n++) {
            PyObject *text = PyDict_GetItemWithError(names, PyTuple_GET_ITEM(program->captures, n));
            Text *own = &page->captures[item * page->capture_count + n];
            if (text == NULL && PyErr_Occurred())
                return 0;
            if (text == NULL || !PyUnicode_Check(text))
                continue;
            Py_ssize_t size;
            own->at = (const Byte *)PyUnicode_AsUTF8AndSize(text, &size);
            if (own->at == NULL)
                return 0;
            own->size = (size_t)size;
        }
    }
    return 1;
}

static int check_items(PyObject *items)
{
    for (Py_ssize_t n = 0; n < PyList_GET_SIZE(items); n++) {
        PyObject *item = PyList_GET_ITEM(items, n);
        if (!PyTuple_Check(item) || PyTuple_GET_SIZE(item) < 2 || !PyBytes_CheckExact(PyTuple_GET_ITEM(item, 1))) {
            PyErr_SetString(PyExc_TypeError, "an item that holds no bytes");
            return 0;
        }
    }
    return 1;
}

int page_of(Program *program, PyObject *items, PyObject *captured, PyObject *blobs, Page *page)
{
    if (PyList_GET_SIZE(items) > 10000000 || PyList_GET_SIZE(items) != PyList_GET_SIZE(captured) ||
        PyTuple_GET_SIZE(blobs) != program->table_count) {
        PyErr_SetString(PyExc_ValueError, "a page whose parts do not fit");
        return 0;
    }
    page->items = (int)PyList_GET_SIZE(items);
    page->capture_count = (int)PyTuple_GET_SIZE(program->captures);
    page->captures = PyMem_Calloc((size_t)page->items * (size_t)page->capture_count + 1, sizeof(Text));
    page->rows = PyMem_Calloc((size_t)program->table_count, sizeof(Rows));
    if (page->captures == NULL || page->rows == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    Index index = {0};
    int good = check_items(items) && read_captures(program, captured, page) && index_page(program, page, &index);
    for (int table = 0; good && table < program->table_count; table++)
        good = read_rows(program, page, &index, table, PyTuple_GET_ITEM(blobs, table));
    PyMem_Free(index.forms);
    PyMem_Free(index.room);
    PyMem_Free(index.slots);
    return good;
}

void page_free(Program *program, Page *page)
{
    for (int table = 0; page->rows != NULL && table < program->table_count; table++) {
        PyMem_Free(page->rows[table].rows);
        PyMem_Free(page->rows[table].first);
        PyMem_Free(page->rows[table].last);
        PyMem_Free(page->rows[table].counts);
    }
    PyMem_Free(page->rows);
    PyMem_Free(page->captures);
}
