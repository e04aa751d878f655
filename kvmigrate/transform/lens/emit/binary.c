/* Bytes that stand in texts: UUIDs, hex, base64. Their one usual spelling only. */
#include "emit.h"

#define NONE 0x80
#define NONE_16 NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE

/* The values of lower case digits. */
static const Byte HEX_DIGITS[256] = {
    NONE_16, NONE_16, NONE_16,
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, NONE, NONE, NONE, NONE, NONE, NONE,
    NONE_16, NONE_16,
    NONE, 10, 11, 12, 13, 14, 15, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE,
    NONE_16, NONE_16, NONE_16, NONE_16, NONE_16, NONE_16, NONE_16, NONE_16, NONE_16,
};

/* Two digits to one byte; what is no digit leaves a bit of NONE in *wrong*. */
static Byte hex_pair(const Byte *at, Byte *wrong)
{
    Byte high = HEX_DIGITS[at[0]], low = HEX_DIGITS[at[1]];
    *wrong |= high | low;
    return (Byte)(high << 4 | low);
}

int slot_uuid(Slot *slot, const Text *text)
{
    static const Byte PAIRS[16] = {0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34};
    const Byte *at = text->start;
    Byte wrong = 0;
    if (text->escaped || text->size != 36 || at[8] != '-' || at[13] != '-' || at[18] != '-' || at[23] != '-')
        return 0;
    Byte *out = slot_inline(slot, 16);
    for (int n = 0; n < 16; n++)
        out[n] = hex_pair(at + PAIRS[n], &wrong);
    return wrong < NONE;
}

static int base64_digit(Byte byte)
{
    if (byte >= 'A' && byte <= 'Z')
        return byte - 'A';
    if (byte >= 'a' && byte <= 'z')
        return byte - 'a' + 26;
    if (is_digit(byte))
        return byte - '0' + 52;
    return byte == '+' ? 62 : byte == '/' ? 63 : -1;
}

/* Four digits to one to three bytes; 0: they are none, or bits are left over. */
static int base64_group(const Byte *at, int last, Byte *out)
{
    int padding = last ? (at[3] == '=') + (at[2] == '=' && at[3] == '=') : 0;
    uint32_t bits = 0;
    for (int n = 0; n < 4 - padding; n++) {
        int value = base64_digit(at[n]);
        if (value < 0)
            return 0;
        bits = bits << 6 | (uint32_t)value;
    }
    bits <<= 6 * padding;
    if (padding && bits & (padding == 1 ? 0xFFu : 0xFFFFu))
        return 0;
    out[0] = (Byte)(bits >> 16);
    out[1] = (Byte)(bits >> 8);
    out[2] = (Byte)bits;
    return 3 - padding;
}

Verdict slot_bytes(Slot *slot, const Text *text, Kind kind, Buffer *arena)
{
    size_t unit = kind == HEX ? 2 : 4;
    if (text->escaped || text->size % unit)
        return NOT_MINE;
    /* Three bytes of each group are written, whatever it holds. */
    if (!buffer_reserve(arena, 4 + text->size))
        return FAILED;
    size_t offset = arena->size;
    Byte *start = arena->data + offset + 4, *out = start;
    for (size_t n = 0; n < text->size; n += unit) {
        if (kind == HEX) {
            Byte wrong = 0;
            *out++ = hex_pair(text->start + n, &wrong);
            if (wrong >= NONE)
                return NOT_MINE;
        } else {
            int count = base64_group(text->start + n, n + 4 == text->size, out);
            if (count == 0)
                return NOT_MINE;
            out += count;
        }
    }
    size_t size = (size_t)(out - start);
    put_32(arena->data + offset, (uint32_t)size);
    arena->size += 4 + size;
    slot->state = IN_ARENA;
    slot->offset = offset;
    slot->size = (uint32_t)size + 4;
    return MINE;
}
