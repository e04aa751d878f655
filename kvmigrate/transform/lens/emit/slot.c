/* Buffers, and fields on their way from an item to a row. */
#include "emit.h"

int buffer_grow(Buffer *buffer, size_t more)
{
    size_t room = buffer->room ? buffer->room : 4096;
    if (more > SIZE_MAX / 4 - buffer->size)
        return 0;
    while (room - buffer->size < more)
        room *= 2;
    Byte *data = PyMem_RawRealloc(buffer->data, room);
    if (data == NULL)
        return 0;
    buffer->data = data;
    buffer->room = room;
    return 1;
}

/* Add the field to a row. False: no memory. */
int slot_write(const Slot *slot, Buffer *out, const Buffer *arena)
{
    Byte head[5];
    switch (slot->state) {
    case INLINE:
        return buffer_add(out, slot->inlined, slot->size);
    case IN_ARENA:
        return buffer_add(out, arena->data + slot->offset, slot->size);
    case POINTED_TEXT:
        if (!buffer_reserve(out, slot->size + (size_t)4))
            return 0;
        put_32(head, slot->size);
        buffer_put(out, head, 4);
        buffer_put(out, slot->start, slot->size);
        return 1;
    case POINTED_JSONB:
        if (!buffer_reserve(out, slot->size + (size_t)5))
            return 0;
        put_32(head, slot->size + 1);
        head[4] = 1;
        buffer_put(out, head, 5);
        buffer_put(out, slot->start, slot->size);
        return 1;
    default:
        put_32(head, 0xFFFFFFFF);
        return buffer_add(out, head, 4);
    }
}

/* Point to the text, or put what its escapes spell into the arena. */
Verdict slot_text(Slot *slot, const Text *text, Buffer *arena)
{
    if (!text->escaped) {
        if (text->size > MAX_TEXT_BYTES)
            return NOT_MINE;
        slot->state = POINTED_TEXT;
        slot->start = text->start;
        slot->size = (uint32_t)text->size;
        return MINE;
    }
    size_t offset = arena->size;
    if (!buffer_add(arena, "\0\0\0", 4) || !unescape(text, arena))
        return FAILED;
    size_t size = arena->size - offset - 4;
    if (size > MAX_TEXT_BYTES)
        return NOT_MINE;
    put_32(arena->data + offset, (uint32_t)size);
    slot->state = IN_ARENA;
    slot->offset = offset;
    slot->size = (uint32_t)size + 4;
    return MINE;
}
