/* JSON text, strictly: RFC 8259, valid UTF-8, and nothing that PostgreSQL's text cannot hold. */
#include "walk.h"

int take_word(Scan *scan, const char *word)
{
    size_t size = strlen(word);
    if ((size_t)(scan->end - scan->at) < size || memcmp(scan->at, word, size) != 0)
        return 0;
    scan->at += size;
    return 1;
}

static int continues(const Byte *at, size_t count)
{
    for (size_t n = 0; n < count; n++)
        if ((at[n] & 0xC0) != 0x80)
            return 0;
    return 1;
}

/* The size of a character that is no ASCII; 0: it is no UTF-8. */
static size_t character_size(const Byte *at, const Byte *end)
{
    size_t left = (size_t)(end - at);
    uint32_t code;
    if (left >= 2 && (at[0] & 0xE0) == 0xC0 && continues(at + 1, 1))
        return at[0] >= 0xC2 ? 2 : 0;
    if (left >= 3 && (at[0] & 0xF0) == 0xE0 && continues(at + 1, 2)) {
        code = (uint32_t)(at[0] & 0x0F) << 12 | (uint32_t)(at[1] & 0x3F) << 6;
        return code < 0x800 || (code >= 0xD800 && code <= 0xDFFF) ? 0 : 3;
    }
    if (left >= 4 && (at[0] & 0xF8) == 0xF0 && continues(at + 1, 3)) {
        code = (uint32_t)(at[0] & 0x07) << 18 | (uint32_t)(at[1] & 0x3F) << 12;
        return code < 0x10000 || code > 0x10FFFF ? 0 : 4;
    }
    return 0;
}

static int hex_of(Byte byte)
{
    if (is_digit(byte))
        return byte - '0';
    if (byte >= 'a' && byte <= 'f')
        return byte - 'a' + 10;
    return byte >= 'A' && byte <= 'F' ? byte - 'A' + 10 : -1;
}

/* The code of \uXXXX; -1: it is none, or none that a text column can hold by itself. */
static int code_of(const Byte *at, const Byte *end)
{
    int code = 0;
    if (end - at < 6)
        return -1;
    for (int n = 2; n < 6; n++) {
        int digit = hex_of(at[n]);
        if (digit < 0)
            return -1;
        code = code * 16 + digit;
    }
    return code == 0 || (code >= 0xD800 && code <= 0xDFFF) ? -1 : code;
}

static size_t escape_size(const Byte *at, const Byte *end)
{
    if (end - at < 2)
        return 0;
    if (at[1] == 'u')
        return code_of(at, end) < 0 ? 0 : 6;
    return at[1] != 0 && strchr("\"\\/bfnrt", at[1]) != NULL ? 2 : 0;
}

int take_text(Scan *scan, Text *text)
{
    const Byte *at = scan->at, *end = scan->end;
    if (at >= end || *at != '"')
        return 0;
    text->at = ++at;
    text->escaped = 0;
    while (at < end && *at != '"') {
        size_t size = 1;
        if (*at == '\\') {
            text->escaped = 1;
            size = escape_size(at, end);
        } else if (*at < 0x20) {
            return 0;
        } else if (*at >= 0x80) {
            size = character_size(at, end);
        }
        if (size == 0)
            return 0;
        at += size;
    }
    if (at >= end)
        return 0;
    text->size = (size_t)(at - text->at);
    scan->at = at + 1;
    return 1;
}

int take_name(Scan *scan, Text *name)
{
    skip_space(scan);
    if (!take_text(scan, name))
        return 0;
    skip_space(scan);
    if (!take(scan, ':'))
        return 0;
    skip_space(scan);
    return 1;
}

int take_decimal(Scan *scan, Decimal *decimal, Text *spelt)
{
    const Byte *at = scan->at, *end = scan->end;
    spelt->at = at;
    spelt->escaped = 0;
    decimal->negative = at < end && *at == '-';
    at += decimal->negative;
    decimal->whole = at;
    while (at < end && is_digit(*at))
        at++;
    decimal->whole_size = (size_t)(at - decimal->whole);
    if (decimal->whole_size == 0 || (decimal->whole_size > 1 && decimal->whole[0] == '0'))
        return 0;
    if (decimal->whole[0] == '0')
        decimal->whole_size = 0;
    decimal->fraction = at;
    decimal->fraction_size = 0;
    if (at < end && *at == '.') {
        decimal->fraction = ++at;
        while (at < end && is_digit(*at))
            at++;
        if (at == decimal->fraction)
            return 0;
        decimal->fraction_size = (size_t)(at - decimal->fraction);
        while (decimal->fraction_size && decimal->fraction[decimal->fraction_size - 1] == '0')
            decimal->fraction_size--;
    }
    if (at < end && (*at == 'e' || *at == 'E'))
        return 0;
    spelt->size = (size_t)(at - spelt->at);
    scan->at = at;
    return 1;
}

static int skip_scalar(Scan *scan)
{
    Text text;
    Decimal decimal;
    if (next_is(scan, '"'))
        return take_text(scan, &text);
    return take_word(scan, "true") || take_word(scan, "false") || take_word(scan, "null") ||
           take_decimal(scan, &decimal, &text);
}

int skip_value(Scan *scan)
{
    Byte closing[MAX_DEPTH];
    int depth = 0;
    Text name;
    for (;;) {
        skip_space(scan);
        if (next_is(scan, '{') || next_is(scan, '[')) {
            if (depth == MAX_DEPTH)
                return 0;
            closing[depth] = *scan->at == '{' ? '}' : ']';
            scan->at++;
            skip_space(scan);
            if (!take(scan, closing[depth])) {
                if (closing[depth++] == '}' && !take_name(scan, &name))
                    return 0;
                continue;
            }
        } else if (!skip_scalar(scan)) {
            return 0;
        }
        for (;;) {
            if (depth == 0)
                return 1;
            skip_space(scan);
            if (take(scan, ','))
                break;
            if (!take(scan, closing[--depth]))
                return 0;
        }
        if (closing[depth - 1] == '}' && !take_name(scan, &name))
            return 0;
    }
}

int buffer_reserve(Buffer *buffer, size_t size)
{
    if (buffer->room >= size)
        return 1;
    Byte *data = PyMem_Realloc(buffer->data, size + 256);
    if (data == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    buffer->data = data;
    buffer->room = size + 256;
    return 1;
}

static Byte *put_code(Byte *to, unsigned code)
{
    if (code < 0x80) {
        *to++ = (Byte)code;
    } else if (code < 0x800) {
        *to++ = (Byte)(0xC0 | code >> 6);
        *to++ = (Byte)(0x80 | (code & 0x3F));
    } else {
        *to++ = (Byte)(0xE0 | code >> 12);
        *to++ = (Byte)(0x80 | (code >> 6 & 0x3F));
        *to++ = (Byte)(0x80 | (code & 0x3F));
    }
    return to;
}

/* What an escaped text says, which is never longer than how it is spelt. */
static int say(const Text *text, Buffer *buffer)
{
    if (!buffer_reserve(buffer, text->size))
        return 0;
    const Byte *at = text->at, *end = at + text->size;
    Byte *to = buffer->data;
    while (at < end) {
        if (*at != '\\') {
            *to++ = *at++;
            continue;
        }
        unsigned code = at[1];
        size_t size = 2;
        switch (at[1]) {
        case 'b': code = 8; break;
        case 'f': code = 12; break;
        case 'n': code = 10; break;
        case 'r': code = 13; break;
        case 't': code = 9; break;
        case 'u':
            code = (unsigned)code_of(at, end);
            size = 6;
            break;
        default: break;
        }
        to = put_code(to, code);
        at += size;
    }
    buffer->size = (size_t)(to - buffer->data);
    return 1;
}

Answer says(const Text *text, const Byte *bytes, size_t size, Buffer *scratch)
{
    if (!text->escaped)
        return text->size == size && memcmp(text->at, bytes, size) == 0 ? YES : NO;
    if (text->size < size)
        return NO;
    if (!say(text, scratch))
        return FAILED;
    return scratch->size == size && memcmp(scratch->data, bytes, size) == 0 ? YES : NO;
}

Answer says_same(const Text *one, const Text *other, Buffer *scratch, Buffer *more)
{
    if (!other->escaped)
        return says(one, other->at, other->size, scratch);
    if (!say(other, more))
        return FAILED;
    return says(one, more->data, more->size, scratch);
}

int same_decimal(const Decimal *one, const Decimal *other)
{
    int zero = one->whole_size == 0 && one->fraction_size == 0;
    return one->whole_size == other->whole_size && one->fraction_size == other->fraction_size &&
           (zero || one->negative == other->negative) && memcmp(one->whole, other->whole, one->whole_size) == 0 &&
           memcmp(one->fraction, other->fraction, one->fraction_size) == 0;
}
