/* How a column spells its value in JSON, and whether a member is spelled just so. Columns are in binary format. */
#include "walk.h"

#define DAY_MICROS INT64_C(86400000000)
#define TO_2000 INT64_C(946684800000000) /* from 1970 to 2000, in microseconds */

static void spell_uuid(const Byte *at, Byte *to)
{
    static const char digits[] = "0123456789abcdef";
    for (int n = 0; n < 16; n++) {
        if (n == 4 || n == 6 || n == 8 || n == 10)
            *to++ = '-';
        *to++ = (Byte)digits[at[n] >> 4];
        *to++ = (Byte)digits[at[n] & 15];
    }
}

int same_uuid(const Text *text, const Text *stored)
{
    Byte spelt[36];
    if (text->size != 36 || stored->size != 16)
        return 0;
    spell_uuid(stored->at, spelt);
    return memcmp(text->at, spelt, 36) == 0;
}

/* A numeric: groups of four digits, the first of them worth 10000 to the power of *weight*. */
int same_numeric(const Decimal *number, const Text *stored)
{
    Byte digits[(2 * MAX_GROUPS + 2) * 4], *to = digits;
    if (stored->size < 8)
        return 0;
    int count = (int16_t)big_endian(stored->at, 2), weight = (int16_t)big_endian(stored->at + 2, 2);
    unsigned sign = (unsigned)big_endian(stored->at + 4, 2);
    if (count < 0 || count > MAX_GROUPS || weight >= MAX_GROUPS || weight < -MAX_GROUPS ||
        stored->size != 8 + 2 * (size_t)count || (sign != 0 && sign != 0x4000))
        return 0;
    /* Groups before the first one that is sent are 0, as are those behind the last one. */
    int last = count > weight + 1 ? count : weight + 1;
    int lead = weight < -1 ? -1 - weight : 0;
    int wholes = weight < 0 ? 0 : weight + 1;
    if (lead + last > 2 * MAX_GROUPS)
        return 0;
    for (int n = -lead; n < last; n++) {
        unsigned group = n >= 0 && n < count ? (unsigned)big_endian(stored->at + 8 + 2 * n, 2) : 0;
        if (group > 9999)
            return 0;
        *to++ = (Byte)('0' + group / 1000);
        *to++ = (Byte)('0' + group / 100 % 10);
        *to++ = (Byte)('0' + group / 10 % 10);
        *to++ = (Byte)('0' + group % 10);
    }
    Decimal held = {digits, digits + 4 * wholes, 4 * (size_t)wholes, (size_t)(to - digits) - 4 * (size_t)wholes,
                    sign != 0};
    while (held.whole_size && held.whole[0] == '0') {
        held.whole++;
        held.whole_size--;
    }
    while (held.fraction_size && held.fraction[held.fraction_size - 1] == '0')
        held.fraction_size--;
    return same_decimal(number, &held);
}

static int is_spelt(const Decimal *number, const char *spelt)
{
    Scan scan = {(const Byte *)spelt, (const Byte *)spelt + strlen(spelt)};
    Decimal held;
    Text text;
    return take_decimal(&scan, &held, &text) && scan.at == scan.end && same_decimal(number, &held);
}

/* A double is spelt as its shortest text that tells it from all others. */
Answer same_double(const Decimal *number, const Text *stored)
{
    uint64_t bits;
    double value;
    if (stored->size != 8)
        return NO;
    bits = big_endian(stored->at, 8);
    memcpy(&value, &bits, 8);
    char *spelt = PyOS_double_to_string(value, 'r', 0, 0, NULL);
    if (spelt == NULL)
        return FAILED;
    int same = is_spelt(number, spelt);
    PyMem_Free(spelt);
    return same ? YES : NO;
}

/* As a double, but of single precision. */
Answer same_real(const Decimal *number, const Text *stored)
{
    float value;
    if (stored->size != 4)
        return NO;
    uint32_t bits = (uint32_t)big_endian(stored->at, 4);
    memcpy(&value, &bits, 4);
    for (int digits = 1; digits < 10; digits++) {
        char *spelt = PyOS_double_to_string((double)value, 'g', digits, 0, NULL);
        if (spelt == NULL)
            return FAILED;
        double again = PyOS_string_to_double(spelt, NULL, NULL);
        if (again == -1.0 && PyErr_Occurred()) {
            PyMem_Free(spelt);
            return FAILED;
        }
        int exact = (float)again == value, same = exact && is_spelt(number, spelt);
        PyMem_Free(spelt);
        if (exact)
            return same ? YES : NO;
    }
    return NO;
}

/* Digits at their places; *form* has 0 for a digit. */
static int has_form(const Byte *at, const char *form, size_t size)
{
    for (size_t n = 0; n < size; n++)
        if (form[n] == '0' ? !is_digit(at[n]) : at[n] != (Byte)form[n])
            return 0;
    return 1;
}

static int64_t digits_at(const Byte *at, int count)
{
    int64_t value = 0;
    for (int n = 0; n < count; n++)
        value = value * 10 + (at[n] - '0');
    return value;
}

/* Days from 2000-01-01 to YYYY-MM-DD, by counting leap days up to that year. */
static int days_of(const Byte *at, int64_t *days)
{
    static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365};
    int64_t year = digits_at(at, 4), month = digits_at(at + 5, 2), day = digits_at(at + 8, 2), past = year - 1;
    if (year < 1 || month < 1 || month > 12)
        return 0;
    int leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (day < 1 || day > before[month] - before[month - 1] + (leap && month == 2))
        return 0;
    *days = past * 365 + past / 4 - past / 100 + past / 400 + before[month - 1] + (leap && month > 2) + day - 1 - 730119;
    return 1;
}

int same_date(const Text *text, const Text *stored)
{
    int64_t days;
    return text->size == 10 && stored->size == 4 && has_form(text->at, "0000-00-00", 10) && days_of(text->at, &days) &&
           days == (int32_t)big_endian(stored->at, 4);
}

/* Only the canonical forms: milliseconds, and microseconds where those are no whole milliseconds. */
int same_instant(const Text *text, const Text *stored)
{
    const Byte *at = text->at;
    int64_t days, micros;
    if (stored->size != 8 || (text->size != 24 && text->size != 27))
        return 0;
    int fine = text->size == 27;
    if (!has_form(at, fine ? "0000-00-00T00:00:00.000000Z" : "0000-00-00T00:00:00.000Z", text->size))
        return 0;
    int64_t hour = digits_at(at + 11, 2), minute = digits_at(at + 14, 2), second = digits_at(at + 17, 2);
    if (hour > 23 || minute > 59 || second > 59 || (fine && digits_at(at + 23, 3) == 0) || !days_of(at, &days))
        return 0;
    micros = digits_at(at + 20, fine ? 6 : 3) * (fine ? 1 : 1000);
    micros += ((hour * 60 + minute) * 60 + second) * 1000000 + days * DAY_MICROS;
    return micros == (int64_t)big_endian(stored->at, 8);
}

/* Of the years 1 to 9999, as are all that JSON's times can be. */
int same_epoch(int64_t number, int64_t unit, const Text *stored)
{
    int64_t first = -730119 * DAY_MICROS, behind = 2921940 * DAY_MICROS;
    if (stored->size != 8 || number > INT64_MAX / unit / 2 || number < INT64_MIN / unit / 2)
        return 0;
    int64_t micros = number * unit - TO_2000;
    return micros >= first && micros < behind && micros == (int64_t)big_endian(stored->at, 8);
}

/* HH:MM:SS, with microseconds where there are any. */
int same_time(const Text *text, const Text *stored)
{
    const Byte *at = text->at;
    if (stored->size != 8 || (text->size != 8 && text->size != 15))
        return 0;
    int fine = text->size == 15;
    if (!has_form(at, fine ? "00:00:00.000000" : "00:00:00", text->size))
        return 0;
    int64_t hour = digits_at(at, 2), minute = digits_at(at + 3, 2), second = digits_at(at + 6, 2);
    int64_t micros = fine ? digits_at(at + 9, 6) : 0;
    if (hour > 23 || minute > 59 || second > 59 || (fine && micros == 0))
        return 0;
    return ((hour * 60 + minute) * 60 + second) * 1000000 + micros == (int64_t)big_endian(stored->at, 8);
}

/* A part of a duration, unless it is 0. */
static char *put_part(char *to, int64_t value, char unit)
{
    return value ? to + sprintf(to, "%lld%c", (long long)value, unit) : to;
}

/* ISO 8601 with days, hours, minutes and seconds, none of them 0; PT0S for nothing. Months have no number of days. */
int same_duration(const Text *text, const Text *stored)
{
    char spelt[96], *to = spelt;
    if (stored->size != 16 || big_endian(stored->at + 12, 4) != 0)
        return 0;
    int64_t micros = (int64_t)big_endian(stored->at, 8), days = (int32_t)big_endian(stored->at + 8, 4);
    int64_t limit = INT64_C(2000000000000000000);
    if (micros > limit || micros < -limit || days > 20000000 || days < -20000000)
        return 0;
    micros += days * DAY_MICROS;
    if (micros < 0) {
        *to++ = '-';
        micros = -micros;
    }
    *to++ = 'P';
    to = put_part(to, micros / DAY_MICROS, 'D');
    micros %= DAY_MICROS;
    if (micros || to[-1] == 'P') {
        int64_t seconds = micros / 1000000, fraction = micros % 1000000;
        *to++ = 'T';
        to = put_part(to, seconds / 3600, 'H');
        to = put_part(to, seconds / 60 % 60, 'M');
        if (fraction) {
            to += sprintf(to, "%d.%06d", (int)(seconds % 60), (int)fraction);
            while (to[-1] == '0')
                to--;
            *to++ = 'S';
        } else if (seconds % 60 || to[-1] == 'T') {
            to += sprintf(to, "%dS", (int)(seconds % 60));
        }
    }
    return text->size == (size_t)(to - spelt) && memcmp(text->at, spelt, text->size) == 0;
}

int same_hex(const Text *text, const Text *stored)
{
    static const char digits[] = "0123456789abcdef";
    if (text->size / 2 != stored->size || text->size % 2)
        return 0;
    for (size_t n = 0; n < stored->size; n++)
        if (text->at[2 * n] != digits[stored->at[n] >> 4] || text->at[2 * n + 1] != digits[stored->at[n] & 15])
            return 0;
    return 1;
}

int same_base64(const Text *text, const Text *stored)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t size = stored->size;
    if (text->size != (size + 2) / 3 * 4)
        return 0;
    for (size_t n = 0, place = 0; n < size; n += 3, place += 4) {
        uint32_t bits = (uint32_t)stored->at[n] << 16;
        bits |= n + 1 < size ? (uint32_t)stored->at[n + 1] << 8 : 0;
        bits |= n + 2 < size ? stored->at[n + 2] : 0;
        char spelt[4] = {digits[bits >> 18], digits[bits >> 12 & 63], n + 1 < size ? digits[bits >> 6 & 63] : '=',
                         n + 2 < size ? digits[bits & 63] : '='};
        if (memcmp(text->at + place, spelt, 4) != 0)
            return 0;
    }
    return 1;
}
