/* A member and its column, as PostgreSQL's binary format has it: whether the column spells the member just so. */
#include "walk.h"

int whole_number(const Byte *at, size_t size, int64_t *number)
{
    int negative = size > 0 && at[0] == '-';
    uint64_t value = 0, limit = negative ? (uint64_t)1 << 63 : INT64_MAX;
    if (size == (size_t)negative || (at[negative] == '0' && size > 1))
        return 0;
    for (size_t n = (size_t)negative; n < size; n++) {
        if (!is_digit(at[n]))
            return 0;
        unsigned digit = (unsigned)(at[n] - '0');
        if (value > (limit - digit) / 10)
            return 0;
        value = value * 10 + digit;
    }
    *number = negative ? (int64_t)(0 - value) : (int64_t)value;
    return 1;
}

int stored_number(const Text *stored, int64_t *number)
{
    if (stored->size == 2)
        *number = (int16_t)big_endian(stored->at, 2);
    else if (stored->size == 4)
        *number = (int32_t)big_endian(stored->at, 4);
    else if (stored->size == 8)
        *number = (int64_t)big_endian(stored->at, 8);
    else
        return 0;
    return 1;
}

static int is_choice(PyObject *choices, const Text *stored)
{
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(choices); n++) {
        PyObject *choice = PyTuple_GET_ITEM(choices, n);
        if ((size_t)PyBytes_GET_SIZE(choice) == stored->size &&
            memcmp(PyBytes_AS_STRING(choice), stored->at, stored->size) == 0)
            return 1;
    }
    return 0;
}

static Answer same_string(Scan *scan, const Column *column, const Text *stored, Work *work)
{
    Text text;
    if (!take_text(scan, &text))
        return NO;
    switch (column->kind) {
    case TEXT:
        return says(&text, stored->at, stored->size, &work->scratch);
    case ENUM:
        return is_choice(column->choices, stored) ? says(&text, stored->at, stored->size, &work->scratch) : NO;
    case UUID:
        return same_uuid(&text, stored) ? YES : NO;
    case DATE:
        return same_date(&text, stored) ? YES : NO;
    case ISO:
        return same_instant(&text, stored) ? YES : NO;
    case TIME:
        return same_time(&text, stored) ? YES : NO;
    case DURATION:
        return same_duration(&text, stored) ? YES : NO;
    case HEX:
        return same_hex(&text, stored) ? YES : NO;
    case BASE64:
        return same_base64(&text, stored) ? YES : NO;
    default:
        return NO;
    }
}

static Answer same_scalar(Scan *scan, const Column *column, const Text *stored, Work *work)
{
    Decimal number;
    Text spelt;
    int64_t mine, theirs;
    Scan document;
    switch (column->kind) {
    case BOOLEAN:
        if (stored->size != 1 || stored->at[0] > 1)
            return NO;
        return take_word(scan, stored->at[0] ? "true" : "false") ? YES : NO;
    case INTEGER:
    case EPOCH:
        if (!take_decimal(scan, &number, &spelt) || !whole_number(spelt.at, spelt.size, &mine))
            return NO;
        if (column->kind == EPOCH)
            return same_epoch(mine, column->unit, stored) ? YES : NO;
        return stored_number(stored, &theirs) && mine == theirs ? YES : NO;
    case NUMERIC:
        return take_decimal(scan, &number, &spelt) && same_numeric(&number, stored) ? YES : NO;
    case DOUBLE:
        return take_decimal(scan, &number, &spelt) ? same_double(&number, stored) : NO;
    case REAL:
        return take_decimal(scan, &number, &spelt) ? same_real(&number, stored) : NO;
    case JSONB:
        if (stored->size < 1 || stored->at[0] != 1 || next_is(scan, 'n'))
            return NO;
        document = (Scan){stored->at + 1, stored->at + stored->size};
        return same_document(scan, &document, work, 0);
    default:
        return same_string(scan, column, stored, work);
    }
}

static Answer same_element(Scan *scan, const Column *column, const Byte **at, const Byte *end, Work *work)
{
    if (end - *at < 4)
        return NO;
    int32_t size = (int32_t)big_endian(*at, 4);
    *at += 4;
    skip_space(scan);
    if (size == -1)
        return take_word(scan, "null") ? YES : NO;
    if (size < 0 || size > end - *at)
        return NO;
    Text stored = {*at, (size_t)size, 0};
    *at += size;
    return same_scalar(scan, column, &stored, work);
}

/* Of one dimension: count of dimensions, whether it has nulls, type, length, lower bound, elements. */
static Answer same_array(Scan *scan, const Column *column, const Text *stored, Work *work)
{
    const Byte *at = stored->at, *end = at + stored->size;
    if (!take(scan, '[') || stored->size < 12)
        return NO;
    skip_space(scan);
    uint64_t dimensions = big_endian(at, 4);
    if (dimensions == 0)
        return take(scan, ']') ? YES : NO;
    if (dimensions != 1 || stored->size < 20)
        return NO;
    int64_t count = (int32_t)big_endian(at + 12, 4);
    at += 20;
    for (int64_t n = 0; n < count; n++) {
        if (n > 0 && !take(scan, ','))
            return NO;
        Answer same = same_element(scan, column, &at, end, work);
        if (same != YES)
            return same;
        skip_space(scan);
    }
    return take(scan, ']') && at == end ? YES : NO;
}

Answer same_value(Scan *scan, const Column *column, const Text *stored, Work *work)
{
    if (stored->at == NULL)
        return NO;
    return column->array ? same_array(scan, column, stored, work) : same_scalar(scan, column, stored, work);
}

Answer same_capture(const Column *column, const Text *capture, const Text *stored)
{
    int64_t mine, theirs;
    if (stored->at == NULL || capture->at == NULL)
        return NO;
    switch (column->kind) {
    case UUID:
        return same_uuid(capture, stored) ? YES : NO;
    case INTEGER:
        return whole_number(capture->at, capture->size, &mine) && stored_number(stored, &theirs) && mine == theirs
                   ? YES
                   : NO;
    default:
        return capture->size == stored->size && memcmp(capture->at, stored->at, stored->size) == 0 ? YES : NO;
    }
}

static int nibble(Byte byte)
{
    if (is_digit(byte))
        return byte - '0';
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

int stored_form(Kind kind, int bytes, const Text *capture, Byte *room, Text *form)
{
    int64_t number;
    *form = *capture;
    if (capture->at == NULL)
        return 0;
    if (kind == INTEGER) {
        if (!whole_number(capture->at, capture->size, &number))
            return 0;
        for (int n = 0; n < bytes; n++)
            room[n] = (Byte)((uint64_t)number >> 8 * (bytes - 1 - n));
        *form = (Text){room, (size_t)bytes, 0};
    } else if (kind == UUID) {
        int place = 0;
        if (capture->size != 36)
            return 0;
        for (int n = 0; n < 16; n++) {
            place += n == 4 || n == 6 || n == 8 || n == 10;
            int high = nibble(capture->at[place]), low = nibble(capture->at[place + 1]);
            if (high < 0 || low < 0)
                return 0;
            room[n] = (Byte)(high << 4 | low);
            place += 2;
        }
        *form = (Text){room, 16, 0};
    }
    return 1;
}
