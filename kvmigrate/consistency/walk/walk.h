/* What the files of the walk share: its limits, its words, and who offers what.

   The walk passes an item's JSON text and its rows as PostgreSQL's binary format has them, side by side.
   Whatever it does not know for certain to agree is NO: the item goes the long way, which decides.
   It shares nothing with the emitter of the lens, so that a fault would have to be made twice.
*/
#ifndef KVMIGRATE_WALK_H
#define KVMIGRATE_WALK_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

typedef unsigned char Byte;

/* Goes up with each change of what Python hands in, or gets back: `compiled.LAYOUT` is the same number. */
#define LAYOUT 2

/* Beyond each of these it does not know. */
#define MAX_DEPTH 64
#define MAX_GROUPS 64 /* of four digits in a numeric, on either side of its point */
#define MAX_KEY_COLUMNS 8
#define MAX_MEMBERS 4096 /* of one object inside a jsonb */
#define MAX_STEPS (1 << 17) /* of looking for members of its documents, for one item */
#define MIN_STEPS 4096   /* of looking for rows that stand in another order than their elements */

/* FAILED: memory ran out, and a Python exception is set. */
typedef enum { NO, YES, FAILED } Answer;

typedef struct {
    const Byte *at, *end;
} Scan;

/* Bytes: of a string without its quotes as it is spelt, or of a column; at is NULL for SQL NULL. */
typedef struct {
    const Byte *at;
    size_t size;
    int escaped;
} Text;

/* A number without zeros that say nothing: whole has none in front, fraction none behind. */
typedef struct {
    const Byte *whole, *fraction;
    size_t whole_size, fraction_size;
    int negative;
} Decimal;

typedef struct {
    Byte *data;
    size_t size, room;
} Buffer;

/* text.c: JSON text, strictly; nothing reads at or behind scan->end. Each returns whether it is behind what it wants. */
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

static inline int is_digit(Byte byte)
{
    return byte >= '0' && byte <= '9';
}

int take_word(Scan *scan, const char *word);
int take_text(Scan *scan, Text *text);
/* No number with an exponent is taken. */
int take_decimal(Scan *scan, Decimal *decimal, Text *spelt);
/* A member's name and the colon behind it. */
int take_name(Scan *scan, Text *name);
int skip_value(Scan *scan);
int buffer_reserve(Buffer *buffer, size_t size);
/* Whether what text says is these plain bytes. */
Answer says(const Text *text, const Byte *bytes, size_t size, Buffer *scratch);
Answer says_same(const Text *one, const Text *other, Buffer *scratch, Buffer *more);
int same_decimal(const Decimal *one, const Decimal *other);

/* document.c: two JSON texts that say the same; the stored one is of jsonb, and so names no member twice. */
typedef struct {
    Text name;
    const Byte *value;
    int met;
} Entry;

typedef struct {
    Buffer scratch, more;
    Entry *entries;
    size_t held, room;
    int64_t steps; /* left for an item's objects whose members stand in another order */
} Work;

Answer same_document(Scan *mine, Scan *stored, Work *work, int depth);

/* spelling.c: a member that is text or a number, and its column that is not NULL. */
static inline uint64_t big_endian(const Byte *at, size_t size)
{
    uint64_t value = 0;
    for (size_t n = 0; n < size; n++)
        value = value << 8 | at[n];
    return value;
}

int same_uuid(const Text *text, const Text *stored);
int same_numeric(const Decimal *number, const Text *stored);
Answer same_double(const Decimal *number, const Text *stored);
Answer same_real(const Decimal *number, const Text *stored);
int same_date(const Text *text, const Text *stored);
int same_instant(const Text *text, const Text *stored);
int same_epoch(int64_t number, int64_t unit, const Text *stored);
int same_time(const Text *text, const Text *stored);
int same_duration(const Text *text, const Text *stored);
int same_hex(const Text *text, const Text *stored);
int same_base64(const Text *text, const Text *stored);

/* value.c: a member and its column. */
typedef enum {
    TEXT, ENUM, UUID, BOOLEAN, INTEGER, NUMERIC, JSONB, DATE, ISO, EPOCH, DOUBLE, REAL, TIME, DURATION, HEX, BASE64,
    KINDS
} Kind;

typedef enum { OF_MEMBER, OF_KEY, OF_PARENT, OF_TENANT, OF_PLACE, OF_NOTHING, ROLES } Role;

typedef struct {
    Role role;
    Kind kind;
    int array, nullable;
    int source;   /* OF_KEY: the capture's number; OF_PARENT, OF_TENANT: a column above */
    int64_t unit; /* EPOCH: microseconds */
    PyObject *choices; /* ENUM: a tuple of bytes, of the program's spec */
    uint64_t seen;     /* the last element in which its member stood */
} Column;

Answer same_value(Scan *scan, const Column *column, const Text *stored, Work *work);
int whole_number(const Byte *at, size_t size, int64_t *number);
int stored_number(const Text *stored, int64_t *number);
/* Whether a key's capture is what the column holds. */
Answer same_capture(const Column *column, const Text *capture, const Text *stored);
/* How a column of this kind holds a capture: size, 0 where it cannot. *room* has 16 bytes for what is made. */
int stored_form(Kind kind, int bytes, const Text *capture, Byte *room, Text *form);

/* program.c: an entity, copied from tuples and checked. */
typedef enum { TO_COLUMN, TO_KEY, TO_OBJECT, TO_LIST, TO_MAP, TARGETS } Target;

typedef struct {
    const Byte *name;
    size_t size;
    Target target;
    int number;
    uint64_t seen;
} Member;

typedef struct {
    Member *members;
    int count;
} Node;

typedef struct {
    int parent, node, whole, place, columns;
    Column *column;
    Text *fields; /* of the row that is compared now */
} Table;

typedef struct {
    Kind kind;
    int bytes, capture;
} KeyColumn;

typedef struct {
    PyObject_HEAD
    PyObject *spec, *captures; /* captures: a tuple of names */
    Table *tables;
    Node *nodes;
    int table_count, node_count, key_count;
    KeyColumn keys[MAX_KEY_COLUMNS];
    uint64_t serial;
    Work work;
} Program;

extern PyType_Spec program_spec;

/* rows.c: which rows are of which item. */
typedef struct {
    const Byte *at, *end;
    int next, met;
} Row;

typedef struct {
    Row *rows;
    int *first, *last, *counts; /* by item */
    int count;
} Rows;

typedef struct {
    Text *captures; /* by item, then by capture */
    int items, capture_count;
    int strays; /* rows were sent that are of no item, so that the server tells keys apart in another way */
    Rows *rows; /* by table */
} Page;

/* Returns 0 with an exception set. */
int page_of(Program *program, PyObject *items, PyObject *captured, PyObject *blobs, Page *page);
void page_free(Program *program, Page *page);
int read_fields(const Program *program, const Table *table, const Row *row);

/* same.c: two values of Python. */
int surely_same(PyObject *left, PyObject *right, PyTypeObject *decimal, int depth);

/* item.c: one item. */
Answer same_item(Program *program, Page *page, int item, const Byte *text, size_t size);

#endif
