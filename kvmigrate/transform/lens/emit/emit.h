/* What the files of the emitter share: its limits, its words, and who offers what.

   The emitter turns plain items into rows. Whatever it does not know for certain is NOT_MINE: the
   item takes the Python way, which decides what it means. So nothing here refuses or normalises.
*/
#ifndef KVMIGRATE_EMIT_H
#define KVMIGRATE_EMIT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned char Byte;

/* Goes up with each change of what Python hands in, or gets back: `emit_program.LAYOUT` is the same number. */
#define LAYOUT 3

/* Beyond each of these an item is not ours. */
#define MAX_ITEM_BYTES ((size_t)16 << 20)
#define MAX_TEXT_BYTES 65535
#define MAX_ELEMENTS 65535
#define MAX_DEPTH 128
#define MAX_DIGITS 60
#define MAX_GROWTH ((size_t)256 << 20) /* of one item's rows, in bytes */

/* FAILED: memory ran out; no Python exception is set. */
typedef enum { MINE, NOT_MINE, FAILED } Verdict;

/* Bytes that grow. All zero is empty. */
typedef struct {
    Byte *data;
    size_t size, room;
} Buffer;

int buffer_grow(Buffer *buffer, size_t more);

static inline int buffer_reserve(Buffer *buffer, size_t more)
{
    return buffer->room - buffer->size >= more || buffer_grow(buffer, more);
}

/* Add bytes that were reserved. */
static inline void buffer_put(Buffer *buffer, const void *data, size_t size)
{
    if (size)
        memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
}

static inline int buffer_add(Buffer *buffer, const void *data, size_t size)
{
    if (!buffer_reserve(buffer, size))
        return 0;
    buffer_put(buffer, data, size);
    return 1;
}

static inline void put_16(Byte *at, uint32_t value)
{
    at[0] = (Byte)(value >> 8);
    at[1] = (Byte)value;
}

static inline void put_32(Byte *at, uint32_t value)
{
    put_16(at, value >> 16);
    put_16(at + 2, value);
}

static inline void put_64(Byte *at, uint64_t value)
{
    put_32(at, (uint32_t)(value >> 32));
    put_32(at + 4, (uint32_t)value);
}

static inline int is_digit(Byte byte)
{
    return byte >= '0' && byte <= '9';
}

/* scan.c: JSON text, strictly. Each function returns whether it found what it wants, and is then behind it. */

typedef struct {
    const Byte *at, *end;
} Scan;

/* A string without its quotes, as it is spelt. */
typedef struct {
    const Byte *start;
    size_t size;
    int escaped;
} Text;

/* A number as it is spelt: "-12.50e3" has whole "12" and fraction "50". */
typedef struct {
    const Byte *start, *whole, *fraction;
    size_t size, whole_size, fraction_size;
    int negative, exponent;
} Number;

static inline void skip_space(Scan *scan)
{
    while (scan->at < scan->end && (*scan->at == ' ' || *scan->at == '\n' || *scan->at == '\r' || *scan->at == '\t'))
        scan->at++;
}

static inline int next_is(const Scan *scan, Byte byte)
{
    return scan->at < scan->end && *scan->at == byte;
}

static inline int take(Scan *scan, Byte byte)
{
    if (!next_is(scan, byte))
        return 0;
    scan->at++;
    return 1;
}

int take_word(Scan *scan, const char *word);
int scan_text(Scan *scan, Text *text);
int scan_number(Scan *scan, Number *number);
int skip_value(Scan *scan);
int is_odd_json(const Byte *text, size_t size);
/* Add what the escapes of a scanned text spell to the buffer. False: no memory. */
int unescape(const Text *text, Buffer *buffer);

/* program.c: an entity's plan. */

typedef enum { FROM_MEMBER, FROM_KEY, FROM_ORDINAL, FROM_PARENT, FROM_ADDRESS, FROM_EXPIRY, FROM_NOTHING } Source;

typedef enum {
    TEXT,
    BOOLEAN,
    SMALLINT,
    INTEGER,
    BIGINT,
    NUMERIC,
    REAL,
    DOUBLE,
    UUID,
    DATE,
    TIME,
    ISO,
    EPOCH,
    BASE64,
    HEX,
    JSONB,
    ENUM,
    KINDS
} Kind;

typedef struct {
    const char *start;
    size_t size;
} Choice;

/* A column. source_arg: the number of the key column, or the position of the parent's column.
   whole, fraction: the most digits of a numeric, or -1. factor: milliseconds that an epoch counts. */
typedef struct {
    Source source;
    Kind kind;
    int source_arg, required, array, whole, fraction, factor, choice_count;
    uint32_t oid;
    Choice *choices;
} Column;

typedef enum { TO_COLUMN, TO_KEY, TO_OBJECT, TO_CHILD } Target;

/* A member that an object may have. number: of the column in its table, the node, or the table. */
typedef struct {
    const char *name;
    size_t size;
    Target target;
    int number;
} Member;

/* The members of an object. */
typedef struct {
    int first, count;
} Node;

/* whole: the column that takes an element itself, or -1. rest: the column that keeps what others leave, or -1. */
typedef struct {
    int parent, first_column, columns, node, whole, rest;
} Table;

/* Immutable once made. owned: every root row has the item's address. */
typedef struct {
    PyObject_HEAD
    PyObject *spec; /* keeps names and choices alive */
    PyObject *names, *entity;
    Table *tables;
    Node *nodes;
    Member *members;
    Column *columns;
    int table_count, node_count, member_count, column_count, key_count, repeated_keys, takes_expiry, owned;
} Program;

extern PyType_Spec program_spec;

/* slot.c: a field on its way to a row. */

typedef enum { UNSET, SQL_NULL, INLINE, POINTED_TEXT, POINTED_JSONB, IN_ARENA } State;

/* INLINE: the packed field itself. POINTED_*: bytes of the item. IN_ARENA: the packed field, in the run's arena. */
typedef struct {
    State state;
    uint32_t size;
    const Byte *start;
    size_t offset;
    Byte inlined[20];
} Slot;

static inline Byte *slot_inline(Slot *slot, uint32_t size)
{
    slot->state = INLINE;
    slot->size = size + 4;
    put_32(slot->inlined, size);
    return slot->inlined + 4;
}

int slot_write(const Slot *slot, Buffer *out, const Buffer *arena);
Verdict slot_text(Slot *slot, const Text *text, Buffer *arena);

/* numeric.c, time.c, binary.c: one kind of value each, from its usual spelling only. */

int parse_integer(const Number *number, int64_t *value);
Verdict slot_numeric(Slot *slot, const Number *number, const Column *column, Buffer *arena);
int slot_float(Slot *slot, const Number *number, Kind kind);
int slot_integer(Slot *slot, int64_t value, Kind kind);
int slot_date(Slot *slot, const Text *text);
int slot_time(Slot *slot, const Text *text);
int slot_iso(Slot *slot, const Text *text);
int slot_epoch(Slot *slot, int64_t value, int factor);
int slot_uuid(Slot *slot, const Text *text);
Verdict slot_bytes(Slot *slot, const Text *text, Kind kind, Buffer *arena);

/* value.c: the JSON value under the scan into a column's field. */
Verdict slot_value(Slot *slot, const Column *column, Scan *scan, Buffer *arena);
Verdict slot_scalar(Slot *slot, const Column *column, Scan *scan, Buffer *arena);

/* rest.c: what no column takes of an object, which makes an item odd. */

#define MAX_REST_NAMES 32
#define MAX_REST_DEPTH 32

/* text: "{" and the members so far. bytes: of JSON text in all rests of the page. */
typedef struct {
    Buffer text;
    Text names[MAX_REST_NAMES];
    int count;
    size_t bytes, mark;
} Rest;

int is_plain_number(const Number *number);
Verdict add_json(Scan *scan, Buffer *out, Buffer *spare, int depth);
Verdict slot_written_jsonb(Slot *slot, Scan *scan, Buffer *arena, Buffer *spare);
void rest_begin(Rest *rest);
Verdict rest_add_name(Rest *rest, const Text *name);
Verdict rest_end(Rest *rest, Slot *slot, Buffer *arena);

/* item.c: a whole item. */

/* What the captures of a key are good for. */
#define MAX_CAPTURES 16

typedef struct {
    const Program *program;
    Slot *slots;            /* by column */
    uint64_t *seen;         /* by member: the object that had it last */
    const Byte **deferred;  /* by table: its array, to be read when its parent's columns are known */
    Buffer *out;            /* by table */
    Py_ssize_t *rows;       /* by table */
    size_t *size_marks;     /* by table: where the item began */
    Py_ssize_t *row_marks;
    Rest *rests;            /* by table: of the object at work */
    uint64_t stamp;
    Buffer arena, spare;
    int staged, repeated_keys, depth;
    int exact, kept;        /* the item is read exactly, as the Python way does with odd ones; members kept in rests */
    Text captures[MAX_CAPTURES]; /* of the item at work, by key */
    Py_ssize_t ordinal;
} Run;

typedef struct {
    Text address;
    const Byte *data;
    size_t size;
    Py_ssize_t ordinal;
    int derived;            /* the address follows from the columns */
    int expires;
    int64_t expires_at_ms;
} Incoming;

int run_start(Run *run, const Program *program, int staged);
void run_end(Run *run);
Verdict run_item(Run *run, const Incoming *item);

/* route.c: keys whose templates are told by a split at the colons. */

#define MAX_SEGMENTS 16

typedef enum { CHOICES, PLAIN_TEXT, ANY_UUID, ANY_INT, SEGMENT_KINDS } SegmentKind;

typedef struct {
    SegmentKind kind;
    int captured, choice_count;
    Choice *choices;
} Segment;

/* places: which capture each of the program's keys is. program: its number, or -1 where the keys are not ours. */
typedef struct {
    Segment *segments;
    int count, program, derived;
    int places[MAX_CAPTURES];
} Template;

typedef struct {
    Choice head;
    Template *templates;
    int count;
} Head;

typedef struct {
    Head *heads;
    int count;
} Routes;

int routes_read(Routes *routes, PyObject *spec, PyObject *programs);
void routes_free(Routes *routes);
/* The only template of a key, with its captures; NULL: there is none, or several. */
const Template *route_find(const Routes *routes, int *last_head, const Text *key, Text *captures);

/* module.c */
int utf8_of(PyObject *object, Text *text);

/* ledger.c: what the ledger has of accepted items. */

extern const char ledger_rows_doc[];
PyObject *ledger_rows(PyObject *module, PyObject *args);

#endif
