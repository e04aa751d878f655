/* What no column takes of an object: JSON text as the Python way writes it after reading it, to the last byte.

   Whatever it might write in another way is NOT_MINE: numbers with an exponent, very long or very small ones,
   names with escapes, names that stand twice, control characters without a short escape.
*/
#include "emit.h"

#define MAX_INTEGER_DIGITS 18
#define MAX_NUMBER_SIZE 40
#define MAX_SMALL_FRACTION 6
#define MAX_NAMES 32

static Verdict add(Buffer *out, const void *data, size_t size)
{
    return buffer_add(out, data, size) ? MINE : FAILED;
}

/* Whether a decimal is written as it is spelt: below a millionth it would get an exponent. */
int is_plain_number(const Number *number)
{
    if (number->exponent || number->size > MAX_NUMBER_SIZE)
        return 0;
    if (number->fraction_size == 0)
        return number->whole_size <= MAX_INTEGER_DIGITS && !(number->negative && number->whole[0] == '0');
    return number->fraction_size <= MAX_SMALL_FRACTION || number->whole[0] != '0';
}

static Verdict add_number(Scan *scan, Buffer *out)
{
    Number number;
    if (!scan_number(scan, &number) || !is_plain_number(&number))
        return NOT_MINE;
    return add(out, number.start, number.size);
}

/* Add a text whose escapes were taken out, with those that it must have. */
static Verdict add_escaped(const Byte *at, const Byte *end, Buffer *out)
{
    static const char SHORT[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    for (; at < end; at++) {
        Byte pair[2] = {'\\', 0};
        for (size_t n = 0; n + 2 < sizeof(SHORT); n += 2)
            if (*at == (Byte)SHORT[n])
                pair[1] = (Byte)SHORT[n + 1];
        if (pair[1] == 0 && *at < 0x20)
            return NOT_MINE;
        if (!(pair[1] ? buffer_add(out, pair, 2) : buffer_add(out, at, 1)))
            return FAILED;
    }
    return MINE;
}

static Verdict add_string(Scan *scan, Buffer *out, Buffer *spare)
{
    Text text;
    if (!scan_text(scan, &text))
        return NOT_MINE;
    if (!text.escaped)
        return add(out, text.start - 1, text.size + 2);
    size_t offset = spare->size;
    if (!unescape(&text, spare) || !buffer_add(out, "\"", 1))
        return FAILED;
    Verdict found = add_escaped(spare->data + offset, spare->data + spare->size, out);
    spare->size = offset;
    return found == MINE ? add(out, "\"", 1) : found;
}

static Verdict add_word(Scan *scan, const char *word, Buffer *out)
{
    return take_word(scan, word) ? add(out, word, strlen(word)) : NOT_MINE;
}

int has_name(const Text *names, int count, const Text *name)
{
    for (int n = 0; n < count; n++)
        if (names[n].size == name->size && memcmp(names[n].start, name->start, name->size) == 0)
            return 1;
    return 0;
}

static Verdict add_members(Scan *scan, Buffer *out, Buffer *spare, int depth)
{
    Text names[MAX_NAMES];
    int count = 0;
    skip_space(scan);
    if (take(scan, '}'))
        return add(out, "}", 1);
    do {
        Text *name = &names[count];
        skip_space(scan);
        if (count == MAX_NAMES || !scan_text(scan, name) || name->escaped || has_name(names, count, name))
            return NOT_MINE;
        skip_space(scan);
        if (!take(scan, ':'))
            return NOT_MINE;
        if ((count++ && !buffer_add(out, ",", 1)) || !buffer_add(out, name->start - 1, name->size + 2) ||
            !buffer_add(out, ":", 1))
            return FAILED;
        Verdict found = add_json(scan, out, spare, depth);
        if (found != MINE)
            return found;
        skip_space(scan);
    } while (take(scan, ','));
    return take(scan, '}') ? add(out, "}", 1) : NOT_MINE;
}

static Verdict add_elements(Scan *scan, Buffer *out, Buffer *spare, int depth)
{
    int count = 0;
    skip_space(scan);
    if (take(scan, ']'))
        return add(out, "]", 1);
    do {
        if (count++ && !buffer_add(out, ",", 1))
            return FAILED;
        Verdict found = add_json(scan, out, spare, depth);
        if (found != MINE)
            return found;
        skip_space(scan);
    } while (take(scan, ','));
    return take(scan, ']') ? add(out, "]", 1) : NOT_MINE;
}

/* Add the value under the scan without white space. *spare* is as it was, afterwards. */
Verdict add_json(Scan *scan, Buffer *out, Buffer *spare, int depth)
{
    skip_space(scan);
    if (depth == 0 || scan->at >= scan->end)
        return NOT_MINE;
    switch (*scan->at) {
    case '{':
        scan->at++;
        return buffer_add(out, "{", 1) ? add_members(scan, out, spare, depth - 1) : FAILED;
    case '[':
        scan->at++;
        return buffer_add(out, "[", 1) ? add_elements(scan, out, spare, depth - 1) : FAILED;
    case '"':
        return add_string(scan, out, spare);
    case 't':
        return add_word(scan, "true", out);
    case 'f':
        return add_word(scan, "false", out);
    case 'n':
        return add_word(scan, "null", out);
    default:
        return add_number(scan, out);
    }
}

/* A jsonb column of an item that was read exactly: written anew, as all of such an item is. */
Verdict slot_written_jsonb(Slot *slot, Scan *scan, Buffer *arena, Buffer *spare)
{
    size_t offset = arena->size;
    if (next_is(scan, 'n'))
        return NOT_MINE;
    if (!buffer_add(arena, "\0\0\0\0\1", 5))
        return FAILED;
    Verdict found = add_json(scan, arena, spare, MAX_REST_DEPTH);
    size_t size = arena->size - offset;
    if (found != MINE || size > MAX_GROWTH)
        return found == FAILED ? FAILED : NOT_MINE;
    put_32(arena->data + offset, (uint32_t)size - 4);
    slot->state = IN_ARENA;
    slot->offset = offset;
    slot->size = (uint32_t)size;
    return MINE;
}

void rest_begin(Rest *rest)
{
    rest->count = 0;
    rest->text.size = 0;
}

/* Add a member's name; its value comes next. A name with an escape or with the reserved sign is not ours. */
Verdict rest_add_name(Rest *rest, const Text *name)
{
    if (rest->count == MAX_REST_NAMES || name->escaped || (name->size && name->start[0] == '$') ||
        has_name(rest->names, rest->count, name))
        return NOT_MINE;
    int good = buffer_add(&rest->text, rest->count ? ",\"" : "{\"", 2) &&
               buffer_add(&rest->text, name->start, name->size) && buffer_add(&rest->text, "\":", 2);
    rest->names[rest->count++] = *name;
    return good ? MINE : FAILED;
}

/* Close it into a field. */
Verdict rest_end(Rest *rest, Slot *slot, Buffer *arena)
{
    Byte head[5];
    size_t offset = arena->size, size = rest->text.size + 1;
    if (size > MAX_GROWTH)
        return NOT_MINE;
    put_32(head, (uint32_t)size + 1);
    head[4] = 1;
    if (!buffer_add(arena, head, 5) || !buffer_add(arena, rest->text.data, rest->text.size) ||
        !buffer_add(arena, "}", 1))
        return FAILED;
    slot->state = IN_ARENA;
    slot->offset = offset;
    slot->size = (uint32_t)size + 5;
    rest->bytes += size;
    return MINE;
}
