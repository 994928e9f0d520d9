"""Parts of bindings for C that are the same for all schemas."""

from __future__ import annotations

__all__ = ["HEAD", "INPUT"]

HEAD = """\
#ifndef BINDINGS_H
#define BINDINGS_H

#include "plugwasm.h"

// Text and JSON are UTF-8 in `pdk_bytes`. What is given is the plugin's until its function returns.

// Whether bytes are this text.
static inline int bindings_equal(pdk_bytes bytes, const char *text, size_t size) {
    if (bytes.size != size) return 0;
    for (size_t i = 0; i < size; i++)
        if (bytes.data[i] != text[i]) return 0;
    return 1;
}

// A literal as bytes, which are only read.
static inline pdk_bytes bindings_text(const char *text, size_t size) {
    const pdk_bytes bytes = {(char *)(uintptr_t)text, size};
    return bytes;
}

// Without white space at both ends.
static inline pdk_bytes bindings_trimmed(pdk_bytes text) {
    while (text.size && (uint8_t)text.data[text.size - 1] <= ' ') text.size--;
    while (text.size && (uint8_t)text.data[0] <= ' ') text.data++, text.size--;
    return text;
}

static inline int bindings_read_bool(pdk_bytes text, int *into) {
    text = bindings_trimmed(text);
    *into = bindings_equal(text, "true", 4);
    return *into || bindings_equal(text, "false", 5);
}

// An integer of at most `most`, or at least `-least`, as two's complement.
static inline int bindings_read_integer(pdk_bytes text, uint64_t most, uint64_t least,
                                        uint64_t *into) {
    text = bindings_trimmed(text);
    const int is_negative = text.size && text.data[0] == '-';
    const size_t first = is_negative ? 1 : 0;
    const uint64_t limit = is_negative ? least : most;
    uint64_t number = 0;
    if (text.size == first || (text.data[first] == '0' && text.size > first + 1)) return 0;
    for (size_t i = first; i < text.size; i++) {
        const uint64_t digit = (uint64_t)(uint8_t)text.data[i] - '0';
        if (digit > 9 || number > limit / 10 || digit > limit - number * 10) return 0;
        number = number * 10 + digit;
    }
    *into = is_negative ? 0 - number : number;
    return 1;
}

// A block of the host as bytes, which is freed. They are the plugin's until its function returns.
pdk_bytes bindings_take(pdk_handle block);"""

INPUT = """\
#define BINDINGS_UNUSED __attribute__((unused))

#ifdef PDK_HAS_ARENA
pdk_bytes bindings_take(pdk_handle block) { return pdk_take_block(block); }

BINDINGS_UNUSED static inline void bindings_begin(void) { pdk_reset(); }

BINDINGS_UNUSED static inline pdk_bytes bindings_input(void) { return pdk_input_all(); }
#else
#include <stdlib.h>

// What was allocated since the call began: each piece begins with the address of the one before.
static void **bindings_pieces;

BINDINGS_UNUSED static void bindings_begin(void) {
    while (bindings_pieces) {
        void **const before = (void **)*bindings_pieces;
        free(bindings_pieces);
        bindings_pieces = before;
    }
}

static pdk_bytes bindings_room(uint64_t size) {
    const size_t head = sizeof(uint64_t);
    void **const piece = size < UINT32_MAX - 16 ? malloc(head + (size_t)size + 1) : NULL;
    pdk_bytes room = {NULL, 0};
    if (!piece) return room;
    *piece = bindings_pieces;
    bindings_pieces = piece;
    room.data = (char *)piece + head;
    room.size = (size_t)size;
    room.data[room.size] = 0;
    return room;
}

pdk_bytes bindings_take(pdk_handle block) {
    const pdk_bytes room = bindings_room(pdk_size(block));
    if (room.data) pdk_read(block, room.data, room.size);
    if (block) extism_free(block);
    return room;
}

BINDINGS_UNUSED static inline pdk_bytes bindings_input(void) {
    const pdk_bytes room = bindings_room(pdk_input_size());
    if (room.data) pdk_input(0, room.data, room.size);
    return room;
}
#endif"""
