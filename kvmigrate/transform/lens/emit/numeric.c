/* Numbers without exponent, exactly. */
#include "emit.h"

#include <float.h>

#define NEGATIVE 0x4000
/* What the Python way has in tables: three words, whatever the number. */
#define SHORT_WHOLE 8
#define SHORT_FRACTION 4

/* False: no whole number, spelt in another way, or beyond 64 bits. */
int parse_integer(const Number *number, int64_t *value)
{
    if (number->exponent || number->fraction_size || number->whole_size > 19 ||
        number->size != number->whole_size + (size_t)number->negative)
        return 0;
    if (number->negative && number->whole[0] == '0')
        return 0;
    uint64_t found = 0; /* 19 digits always fit */
    for (size_t n = 0; n < number->whole_size; n++)
        found = found * 10 + (uint64_t)(number->whole[n] - '0');
    if (found > (uint64_t)INT64_MAX + (uint64_t)number->negative)
        return 0;
    if (!number->negative)
        *value = (int64_t)found;
    else
        *value = found > (uint64_t)INT64_MAX ? INT64_MIN : -(int64_t)found;
    return 1;
}

int slot_integer(Slot *slot, int64_t value, Kind kind)
{
    if (kind == SMALLINT) {
        if (value < INT16_MIN || value > INT16_MAX)
            return 0;
        put_16(slot_inline(slot, 2), (uint32_t)((uint64_t)value & 0xFFFF));
    } else if (kind == INTEGER) {
        if (value < INT32_MIN || value > INT32_MAX)
            return 0;
        put_32(slot_inline(slot, 4), (uint32_t)((uint64_t)value & 0xFFFFFFFF));
    } else {
        put_64(slot_inline(slot, 8), (uint64_t)value);
    }
    return 1;
}

/* Up to four digits as one number; a fraction's last group is filled up with zeros. */
static uint32_t group_of(const Byte *digits, size_t count, int fill)
{
    uint32_t value = 0;
    for (size_t n = 0; n < 4; n++) {
        if (n < count)
            value = value * 10 + (uint32_t)(digits[n] - '0');
        else if (fill)
            value *= 10;
    }
    return value;
}

static void put_numeric_head(Byte *at, size_t words, int weight, int negative, size_t scale)
{
    put_16(at, (uint32_t)words);
    put_16(at + 2, (uint32_t)weight & 0xFFFF);
    put_16(at + 4, negative ? NEGATIVE : 0);
    put_16(at + 6, (uint32_t)scale);
}

static void slot_short(Slot *slot, const Number *number)
{
    Byte *at = slot_inline(slot, 14);
    size_t high = number->whole_size > 4 ? number->whole_size - 4 : 0;
    put_numeric_head(at, 3, 1, number->negative, number->fraction_size);
    put_16(at + 8, group_of(number->whole, high, 0));
    put_16(at + 10, group_of(number->whole + high, number->whole_size - high, 0));
    put_16(at + 12, group_of(number->fraction, number->fraction_size, 1));
}

/* Base-10000 words without zero words at either end, as `pack_numeric` has them. */
static Verdict slot_long(Slot *slot, const Number *number, size_t whole_size, Buffer *arena)
{
    uint32_t words[2 * (MAX_DIGITS / 4 + 1)];
    size_t count = 0, first = 0, done = 0, head = whole_size % 4;
    int weight = (int)((whole_size + 3) / 4) - 1;
    if (head)
        words[count++] = group_of(number->whole, head, 0);
    for (done = head; done < whole_size; done += 4)
        words[count++] = group_of(number->whole + done, 4, 0);
    for (done = 0; done < number->fraction_size; done += 4) {
        size_t left = number->fraction_size - done;
        words[count++] = group_of(number->fraction + done, left < 4 ? left : 4, 1);
    }
    while (first < count && words[first] == 0) {
        first++;
        weight--;
    }
    while (count > first && words[count - 1] == 0)
        count--;
    int zero = first == count;
    size_t size = 8 + 2 * (count - first);
    if (!buffer_reserve(arena, size + 4))
        return FAILED;
    slot->state = IN_ARENA;
    slot->offset = arena->size;
    slot->size = (uint32_t)size + 4;
    Byte *at = arena->data + arena->size;
    arena->size += size + 4;
    put_32(at, (uint32_t)size);
    put_numeric_head(at + 4, count - first, zero ? 0 : weight, !zero && number->negative, number->fraction_size);
    for (at += 12; first < count; first++, at += 2)
        put_16(at, words[first]);
    return MINE;
}

Verdict slot_numeric(Slot *slot, const Number *number, const Column *column, Buffer *arena)
{
    size_t whole = column->whole < 0 ? MAX_DIGITS : (size_t)column->whole;
    size_t fraction = column->fraction < 0 ? MAX_DIGITS : (size_t)column->fraction;
    size_t digits = number->whole[0] == '0' ? 0 : number->whole_size;
    if (number->exponent || digits > MAX_DIGITS || number->fraction_size > MAX_DIGITS)
        return NOT_MINE;
    if (number->fraction_size > fraction || digits > whole)
        return NOT_MINE;
    if (!column->array && number->whole_size <= SHORT_WHOLE && number->whole_size <= whole &&
        number->fraction_size <= SHORT_FRACTION) {
        slot_short(slot, number);
        return MINE;
    }
    return slot_long(slot, number, digits, arena);
}

/* With so few digits the nearest float is exact to compute, and its shortest decimal is the number again. */
int slot_float(Slot *slot, const Number *number, Kind kind)
{
#if FLT_EVAL_METHOD == 0 && DBL_MANT_DIG == 53 && FLT_MANT_DIG == 24
    static const double POWERS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    int most = kind == REAL ? FLT_DIG : DBL_DIG, digits = 0;
    uint64_t mantissa = 0;
    if (number->exponent || number->whole_size > DBL_DIG || number->fraction_size > 22)
        return 0;
    for (size_t n = 0; n < number->whole_size + number->fraction_size; n++) {
        Byte next = n < number->whole_size ? number->whole[n] : number->fraction[n - number->whole_size];
        mantissa = mantissa * 10 + (uint64_t)(next - '0');
        digits += mantissa != 0;
        if (digits > most)
            return 0;
    }
    if (mantissa == 0 && number->negative)
        return 0;
    double value = (double)mantissa / POWERS[number->fraction_size];
    if (number->negative)
        value = -value;
    if (kind == REAL) {
        float single = (float)value;
        uint32_t bits;
        memcpy(&bits, &single, 4);
        put_32(slot_inline(slot, 4), bits);
    } else {
        uint64_t bits;
        memcpy(&bits, &value, 8);
        put_64(slot_inline(slot, 8), bits);
    }
    return 1;
#else
    (void)slot, (void)number, (void)kind;
    return 0;
#endif
}
