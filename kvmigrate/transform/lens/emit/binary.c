/* Bytes that stand in texts: UUIDs, hex, base64. Their one usual spelling only. */
#include "emit.h"

/* Lower case only. */
static int hex_digit(Byte byte)
{
    if (is_digit(byte))
        return byte - '0';
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

static int hex_pair(const Byte *at)
{
    int high = hex_digit(at[0]), low = hex_digit(at[1]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

int slot_uuid(Slot *slot, const Text *text)
{
    if (text->escaped || text->size != 36)
        return 0;
    Byte *out = slot_inline(slot, 16);
    for (int n = 0; n < 36;) {
        if (n == 8 || n == 13 || n == 18 || n == 23) {
            if (text->start[n++] != '-')
                return 0;
            continue;
        }
        int value = hex_pair(text->start + n);
        if (value < 0)
            return 0;
        *out++ = (Byte)value;
        n += 2;
    }
    return 1;
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
            int value = hex_pair(text->start + n);
            if (value < 0)
                return NOT_MINE;
            *out++ = (Byte)value;
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
