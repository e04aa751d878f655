/* Days, times of day and instants, in the one spelling that the way back writes. */
#include "emit.h"

#define US_PER_DAY INT64_C(86400000000)
#define EPOCH_2000_MS INT64_C(946684800000)
#define FIRST_MS (-INT64_C(62135596800000)) /* the years 1 to 9999 */
#define LAST_MS INT64_C(253402300799999)

/* Read so many digits. False: there is something else. */
static int digits_at(const Byte *at, int count, int *value)
{
    int found = 0;
    for (int n = 0; n < count; n++) {
        if (!is_digit(at[n]))
            return 0;
        found = found * 10 + (at[n] - '0');
    }
    *value = found;
    return 1;
}

/* Days since 2000-01-01 of the ten bytes "YYYY-MM-DD". */
static int day_at(const Byte *at, int *days)
{
    static const int LENGTHS[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    static const int BEFORE[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    int year, month, day;
    if (at[4] != '-' || at[7] != '-' || !digits_at(at, 4, &year) || !digits_at(at + 5, 2, &month) ||
        !digits_at(at + 8, 2, &day) || year < 1 || month < 1 || month > 12 || day < 1)
        return 0;
    int leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (day > LENGTHS[month - 1] + (leap && month == 2))
        return 0;
    int past = year - 1;
    *days = past * 365 + past / 4 - past / 100 + past / 400 + BEFORE[month - 1] + (leap && month > 2) + day - 1;
    *days -= 730119; /* of 2000-01-01 */
    return 1;
}

/* Seconds of the eight bytes "HH:MM:SS". */
static int seconds_at(const Byte *at, int *seconds)
{
    int hour, minute, second;
    if (at[2] != ':' || at[5] != ':' || !digits_at(at, 2, &hour) || !digits_at(at + 3, 2, &minute) ||
        !digits_at(at + 6, 2, &second) || hour > 23 || minute > 59 || second > 59)
        return 0;
    *seconds = hour * 3600 + minute * 60 + second;
    return 1;
}

int slot_date(Slot *slot, const Text *text)
{
    int days;
    if (text->escaped || text->size != 10 || !day_at(text->start, &days))
        return 0;
    put_32(slot_inline(slot, 4), (uint32_t)days);
    return 1;
}

/* HH:MM:SS, or with six decimals that are not all zero. */
int slot_time(Slot *slot, const Text *text)
{
    int seconds, micros = 0;
    if (text->escaped || (text->size != 8 && text->size != 15) || !seconds_at(text->start, &seconds))
        return 0;
    if (text->size == 15 && (text->start[8] != '.' || !digits_at(text->start + 9, 6, &micros) || micros == 0))
        return 0;
    put_64(slot_inline(slot, 8), (uint64_t)seconds * 1000000 + (uint64_t)micros);
    return 1;
}

/* YYYY-MM-DDTHH:MM:SS.mmmZ */
int slot_iso(Slot *slot, const Text *text)
{
    int days, seconds, millis;
    const Byte *at = text->start;
    if (text->escaped || text->size != 24 || at[10] != 'T' || at[19] != '.' || at[23] != 'Z' || !day_at(at, &days) ||
        !seconds_at(at + 11, &seconds) || !digits_at(at + 20, 3, &millis))
        return 0;
    int64_t micros = days * US_PER_DAY + (int64_t)seconds * 1000000 + (int64_t)millis * 1000;
    put_64(slot_inline(slot, 8), (uint64_t)micros);
    return 1;
}

/* An epoch that counts *factor* milliseconds. */
int slot_epoch(Slot *slot, int64_t value, int factor)
{
    if (value < FIRST_MS / factor || value > LAST_MS / factor)
        return 0;
    put_64(slot_inline(slot, 8), (uint64_t)((value * factor - EPOCH_2000_MS) * 1000));
    return 1;
}
