/* A plugin development kit for C in one header.
 *
 * A plugin exports functions of type () -> i32 where 0 is success. It has no address in common with its host: what the two
 * exchange lies in blocks of the host's memory, which a plugin names by a handle and reaches only through the imports below. The
 * pdk_* functions copy between those blocks and the plugin's own memory, eight bytes at a time.
 *
 *     #include "pdk/extism.h"
 *
 *     PDK_EXPORT("hello") int32_t hello(void) {
 *         char name[64];
 *         size_t size = pdk_input(0, name, sizeof name);
 *         return pdk_output(name, size);
 *     }
 *
 * Nothing here needs a C library. There is no malloc: a buffer is the caller's, or static, or taken from the arena (pdk_take).
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef uint64_t handle; /* 0 is none */

#define PDK_EXPORT(name) __attribute__((export_name(name)))
#define PDK_IMPORT(module, name) __attribute__((import_module(module), import_name(name)))
#define PDK_HOST(name) PDK_IMPORT("extism:host/env", name) extern

PDK_HOST("alloc") handle host_alloc(uint64_t size);
PDK_HOST("free") void host_free(handle);
PDK_HOST("length") uint64_t host_length(handle);
PDK_HOST("load_u8") uint32_t host_load_u8(uint64_t at);
PDK_HOST("load_u64") uint64_t host_load_u64(uint64_t at);
PDK_HOST("store_u8") void host_store_u8(uint64_t at, uint32_t value);
PDK_HOST("store_u64") void host_store_u64(uint64_t at, uint64_t value);
PDK_HOST("input_length") uint64_t host_input_length(void);
PDK_HOST("input_load_u8") uint32_t host_input_load_u8(uint64_t at);
PDK_HOST("input_load_u64") uint64_t host_input_load_u64(uint64_t at);
PDK_HOST("output_set") void host_output_set(handle, uint64_t size);
PDK_HOST("error_set") void host_error_set(handle);
PDK_HOST("config_get") handle host_config_get(handle key);
PDK_HOST("var_get") handle host_var_get(handle key);
PDK_HOST("var_set") void host_var_set(handle key, handle value);
PDK_HOST("http_request") handle host_http_request(handle request, handle body);
PDK_HOST("http_status_code") int32_t host_http_status_code(void);
PDK_HOST("http_headers") handle host_http_headers(void);
PDK_HOST("log_debug") void host_log_debug(handle text);
PDK_HOST("log_info") void host_log_info(handle text);
PDK_HOST("log_warn") void host_log_warn(handle text);
PDK_HOST("log_error") void host_log_error(handle text);

static inline size_t pdk_length(const char *text) {
    size_t n = 0;
    while (text[n]) n++;
    return n;
}

/* Copies at most `room` bytes of the input, from offset `from` on, and returns how many. 0 says that the input ends there. */
static inline size_t pdk_input(uint64_t from, void *into, size_t room) {
    uint64_t size = host_input_length(), left = from < size ? size - from : 0;
    size_t n = left < room ? (size_t)left : room, i = 0;
    for (; n - i >= 8; i += 8) {
        uint64_t word = host_input_load_u64(from + i);
        __builtin_memcpy((char *)into + i, &word, 8);
    }
    for (; i < n; i++) ((uint8_t *)into)[i] = (uint8_t)host_input_load_u8(from + i);
    return n;
}

/* Copies at most `room` bytes of a block and returns how long the whole block is, which may be more. */
static inline uint64_t pdk_read(handle block, void *into, size_t room) {
    uint64_t size = block ? host_length(block) : 0;
    size_t n = size < room ? (size_t)size : room, i = 0;
    for (; n - i >= 8; i += 8) {
        uint64_t word = host_load_u64(block + i);
        __builtin_memcpy((char *)into + i, &word, 8);
    }
    for (; i < n; i++) ((uint8_t *)into)[i] = (uint8_t)host_load_u8(block + i);
    return size;
}

/* A new block with a copy of these bytes; 0 when there are none, or no room for them. */
static inline handle pdk_block(const void *bytes, size_t n) {
    handle block = n ? host_alloc(n) : 0;
    size_t i = 0;
    if (!block) return 0;
    for (; n - i >= 8; i += 8) {
        uint64_t word;
        __builtin_memcpy(&word, (const char *)bytes + i, 8);
        host_store_u64(block + i, word);
    }
    for (; i < n; i++) host_store_u8(block + i, ((const uint8_t *)bytes)[i]);
    return block;
}

static inline handle pdk_string(const char *text) { return pdk_block(text, pdk_length(text)); }

/* Ends a call: `return pdk_fail("…")` gives the message to the host, `return pdk_output(…)` the result. */
static inline int32_t pdk_fail(const char *message) {
    host_error_set(pdk_string(message));
    return 1;
}

static inline int32_t pdk_output(const void *bytes, size_t n) {
    handle block = pdk_block(bytes, n);
    if (n && !block) return pdk_fail("no memory left for the output");
    host_output_set(block, n);
    return 0;
}

/* The host frees the blocks that it is given as keys and values. What it returns belongs to the plugin: these copy and free it.
 * The result is the length of the whole value, 0 when it is unset. */
static inline uint64_t pdk_take_in(handle block, void *into, size_t room) {
    uint64_t size = pdk_read(block, into, room);
    if (block) host_free(block);
    return size;
}

static inline uint64_t pdk_config(const char *key, void *into, size_t room) {
    return pdk_take_in(host_config_get(pdk_string(key)), into, room);
}

static inline uint64_t pdk_var(const char *key, void *into, size_t room) {
    return pdk_take_in(host_var_get(pdk_string(key)), into, room);
}

static inline void pdk_var_set(const char *key, const void *bytes, size_t n) {
    handle name = pdk_string(key);
    host_var_set(name, pdk_block(bytes, n));
}

static inline void pdk_log(const char *text) { host_log_info(pdk_string(text)); }

/* Sends `{"url": …}` and returns the body of the response, 0 when it is empty; host_http_status_code() has the rest. */
static inline handle pdk_http(const char *request, size_t n) { return host_http_request(pdk_block(request, n), 0); }

/* Writers: each puts something at `to` and returns where the next thing goes. pdk_put_json escapes: it takes up to 6 n bytes. */
static inline char *pdk_put(char *to, const char *text) {
    while (*text) *to++ = *text++;
    return to;
}

static inline char *pdk_put_u64(char *to, uint64_t value) {
    char digits[20];
    size_t n = 0;
    do digits[n++] = (char)('0' + value % 10);
    while (value /= 10);
    while (n) *to++ = digits[--n];
    return to;
}

static inline char *pdk_put_json(char *to, const char *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint8_t c = (uint8_t)bytes[i];
        if (c < 0x20) {
            to = pdk_put(to, "\\u00");
            *to++ = "01"[c >> 4];
            *to++ = "0123456789abcdef"[c & 15];
            continue;
        }
        if (c == '"' || c == '\\') *to++ = '\\';
        *to++ = (char)c;
    }
    return to;
}

#ifndef __wasi__ /* where there is a C library, its malloc owns this memory */
extern uint8_t __heap_base;
static uint8_t *pdk_arena_top;

/* Memory that lasts until the next pdk_arena_reset; NULL when the host gives no more. */
static inline void *pdk_take(size_t n) {
    uintptr_t start = ((uintptr_t)(pdk_arena_top ? pdk_arena_top : &__heap_base) + 15) & ~(uintptr_t)15;
    uint64_t end = (uint64_t)start + n, have = (uint64_t)__builtin_wasm_memory_size(0) << 16;
    if (end > UINT32_MAX) return NULL;
    if (end > have && __builtin_wasm_memory_grow(0, (size_t)((end - have + 65535) >> 16)) == SIZE_MAX) return NULL;
    pdk_arena_top = (uint8_t *)(uintptr_t)end;
    return (void *)start;
}

static inline void pdk_arena_reset(void) { pdk_arena_top = NULL; }

/* The whole input in the arena, or NULL when it does not fit. */
static inline char *pdk_input_all(size_t *size) {
    uint64_t n = host_input_length();
    char *bytes = n > UINT32_MAX ? NULL : pdk_take((size_t)n);
    *size = bytes ? pdk_input(0, bytes, (size_t)n) : 0;
    return bytes;
}
#endif
