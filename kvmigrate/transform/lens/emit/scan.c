/* JSON text, strictly: RFC 8259, valid UTF-8, and nothing that PostgreSQL's text cannot hold.

   No function reads at or behind scan->end.
*/
#include "emit.h"

/* 1: a byte that stands for itself in a string. */
#define ONES_16 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1
static const Byte PLAIN[256] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* not the quote */
    ONES_16, ONES_16,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, /* not the backslash */
    ONES_16, ONES_16,
};

int take_word(Scan *scan, const char *word)
{
    size_t size = strlen(word);
    if ((size_t)(scan->end - scan->at) < size || memcmp(scan->at, word, size) != 0)
        return 0;
    scan->at += size;
    return 1;
}

/* The size of the UTF-8 sequence at *at*, which is no ASCII; 0: it is none (Unicode, table 3-7). */
static size_t utf8_size(const Byte *at, const Byte *end)
{
    size_t size, left = (size_t)(end - at);
    Byte low = 0x80, high = 0xBF;
    if (at[0] >= 0xC2 && at[0] <= 0xDF)
        size = 2;
    else if (at[0] >= 0xE0 && at[0] <= 0xEF)
        size = 3;
    else if (at[0] >= 0xF0 && at[0] <= 0xF4)
        size = 4;
    else
        return 0;
    if (left < size)
        return 0;
    if (at[0] == 0xE0)
        low = 0xA0;
    else if (at[0] == 0xED)
        high = 0x9F;
    else if (at[0] == 0xF0)
        low = 0x90;
    else if (at[0] == 0xF4)
        high = 0x8F;
    if (at[1] < low || at[1] > high)
        return 0;
    for (size_t n = 2; n < size; n++)
        if ((at[n] & 0xC0) != 0x80)
            return 0;
    return size;
}

static int hex_value(Byte byte)
{
    if (is_digit(byte))
        return byte - '0';
    byte |= 0x20;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

/* Whether what follows a backslash looks like U+0000 or half a surrogate pair. It need not be one:
   the Python way looks for these bytes, too, and takes every item that has them. */
static int looks_unsafe(const Byte *at, const Byte *end)
{
    if (end - at < 2 || at[0] != 'u')
        return 0;
    if (at[1] == 'd' || at[1] == 'D')
        return 1;
    return end - at >= 5 && memcmp(at + 1, "0000", 4) == 0;
}

/* The size of the escape at *at*; 0: it is none, or none of ours. */
static size_t escape_size(const Byte *at, const Byte *end)
{
    if (end - at < 2 || looks_unsafe(at + 1, end))
        return 0;
    switch (at[1]) {
    case '"': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
        return 2;
    case '\\':
        return looks_unsafe(at + 2, end) ? 0 : 2;
    case 'u':
        if (end - at < 6)
            return 0;
        for (int n = 2; n < 6; n++)
            if (hex_value(at[n]) < 0)
                return 0;
        return 6;
    default:
        return 0;
    }
}

int scan_text(Scan *scan, Text *text)
{
    const Byte *at = scan->at, *end = scan->end;
    if (at >= end || *at != '"')
        return 0;
    text->start = ++at;
    text->escaped = 0;
    for (;;) {
        size_t size;
        while (at < end && PLAIN[*at])
            at++;
        if (at >= end)
            return 0;
        if (*at == '"')
            break;
        if (*at == '\\') {
            text->escaped = 1;
            size = escape_size(at, end);
        } else {
            size = *at < 0x20 ? 0 : utf8_size(at, end);
        }
        if (size == 0)
            return 0;
        at += size;
    }
    text->size = (size_t)(at - text->start);
    scan->at = at + 1;
    return 1;
}

static const Byte *skip_digits(const Byte *at, const Byte *end)
{
    while (at < end && is_digit(*at))
        at++;
    return at;
}

int scan_number(Scan *scan, Number *number)
{
    const Byte *at = scan->at, *end = scan->end;
    number->start = at;
    number->negative = at < end && *at == '-';
    at += number->negative;
    number->whole = at;
    at = skip_digits(at, end);
    number->whole_size = (size_t)(at - number->whole);
    if (number->whole_size == 0 || (number->whole_size > 1 && number->whole[0] == '0'))
        return 0;
    number->fraction = at;
    number->fraction_size = 0;
    if (at < end && *at == '.') {
        number->fraction = ++at;
        at = skip_digits(at, end);
        number->fraction_size = (size_t)(at - number->fraction);
        if (number->fraction_size == 0)
            return 0;
    }
    number->exponent = at < end && (*at == 'e' || *at == 'E');
    if (number->exponent) {
        at++;
        if (at < end && (*at == '+' || *at == '-'))
            at++;
        const Byte *digits = at;
        at = skip_digits(at, end);
        if (at == digits)
            return 0;
    }
    number->size = (size_t)(at - number->start);
    scan->at = at;
    return 1;
}

static int skip_scalar(Scan *scan)
{
    Text text;
    Number number;
    if (scan->at >= scan->end)
        return 0;
    switch (*scan->at) {
    case '"':
        return scan_text(scan, &text);
    case 't':
        return take_word(scan, "true");
    case 'f':
        return take_word(scan, "false");
    case 'n':
        return take_word(scan, "null");
    default:
        return scan_number(scan, &number);
    }
}

static int skip_name(Scan *scan)
{
    Text name;
    skip_space(scan);
    if (!scan_text(scan, &name))
        return 0;
    skip_space(scan);
    return take(scan, ':');
}

int skip_value(Scan *scan)
{
    Byte closing[MAX_DEPTH];
    int depth = 0;
    for (;;) {
        skip_space(scan);
        if (next_is(scan, '{') || next_is(scan, '[')) {
            if (depth == MAX_DEPTH)
                return 0;
            closing[depth++] = *scan->at == '{' ? '}' : ']';
            scan->at++;
            skip_space(scan);
            if (!next_is(scan, closing[depth - 1])) {
                if (closing[depth - 1] == '}' && !skip_name(scan))
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
            if (!take(scan, closing[depth - 1]))
                return 0;
            depth--;
        }
        if (closing[depth - 1] == '}' && !skip_name(scan))
            return 0;
    }
}

/* Whether JSON text has, or looks as if it had, a number that jsonb might not hold exactly:
   an exponent of four digits, or very many digits. The Python way searches for the same. */
int is_odd_json(const Byte *text, size_t size)
{
    enum { EXPONENT_DIGITS = 4, MANY_DIGITS = 15000 };
    const Byte *end = text + size;
    size_t run = 0;
    for (const Byte *at = text; at < end; at++) {
        if (is_digit(*at)) {
            if (++run == MANY_DIGITS)
                return 1;
            continue;
        }
        if (run && (*at | 0x20) == 'e') {
            const Byte *digits = at + 1;
            if (digits < end && (*digits == '-' || *digits == '+'))
                digits++;
            if (skip_digits(digits, end) - digits >= EXPONENT_DIGITS)
                return 1;
        }
        run = 0;
    }
    return 0;
}

static int put_utf8(Buffer *buffer, unsigned code)
{
    Byte bytes[3];
    size_t size = 1;
    if (code < 0x80) {
        bytes[0] = (Byte)code;
    } else if (code < 0x800) {
        bytes[0] = (Byte)(0xC0 | code >> 6);
        bytes[1] = (Byte)(0x80 | (code & 0x3F));
        size = 2;
    } else {
        bytes[0] = (Byte)(0xE0 | code >> 12);
        bytes[1] = (Byte)(0x80 | (code >> 6 & 0x3F));
        bytes[2] = (Byte)(0x80 | (code & 0x3F));
        size = 3;
    }
    return buffer_add(buffer, bytes, size);
}

int unescape(const Text *text, Buffer *buffer)
{
    const Byte *at = text->start, *end = at + text->size;
    while (at < end) {
        const Byte *run = at;
        while (at < end && *at != '\\')
            at++;
        if (!buffer_add(buffer, run, (size_t)(at - run)))
            return 0;
        if (at == end)
            break;
        unsigned code = at[1];
        switch (at[1]) {
        case 'b': code = '\b'; break;
        case 'f': code = '\f'; break;
        case 'n': code = '\n'; break;
        case 'r': code = '\r'; break;
        case 't': code = '\t'; break;
        case 'u':
            code = 0;
            for (int n = 2; n < 6; n++)
                code = code << 4 | (unsigned)hex_value(at[n]);
            at += 4;
            break;
        default: break;
        }
        at += 2;
        if (!put_utf8(buffer, code))
            return 0;
    }
    return 1;
}
