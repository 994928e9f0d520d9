/* plugwasm.h: write plugins in C.
 *
 * A plugin is a WebAssembly module. It exports functions that the host calls, and has no memory in
 * common with the host: what the two exchange lies in blocks of the host's memory, which a plugin
 * names by handles. The functions below copy between those blocks and the plugin's own memory.
 *
 *     #include "plugwasm.h"
 *
 *     PDK_FUNCTION(greet) {
 *         char greeting[64], *end = pdk_put(greeting, "Hello, ");
 *         end += pdk_input(0, end, 40);
 *         return pdk_output(greeting, (size_t)(end - greeting));
 *     }
 *
 * C99 and a compiler for wasm32 (clang, zig cc) are all that is needed: no C library, no malloc.
 * Plugins built with this header run on every host of the Extism contract.
 *
 * Ownership: a handle that is passed to a config, var, HTTP or log function of the host belongs to
 * the host from then on. A handle that is returned belongs to the plugin: pdk_read_take() and
 * pdk_take_block() copy it and free it. Memory from pdk_take() and pdk_input_all() lasts until
 * pdk_reset(), which a plugin calls at the start of a call if it uses either.
 *
 * With a C library (WASI), these are blocks of its malloc(). Without one, define PDK_NO_ARENA where
 * something else manages all memory above `__heap_base`.
 */
#ifndef PLUGWASM_H
#define PLUGWASM_H

#include <stddef.h>
#include <stdint.h>
#if defined(__wasi__) && !defined(__cplusplus)
#include <stdlib.h>
#endif

#ifdef __cplusplus
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wold-style-cast"
extern "C" {
#endif

#define PDK_VERSION "0.1.0"

/* ---- exports and imports ---------------------------------------------------------------------- */

/* An export: `PDK_EXPORT("name") int32_t any_name(void) { … }`. It returns 0, or an error's code. */
#define PDK_EXPORT(name) __attribute__((export_name(name)))

/* The same, where the export has the function's name: `PDK_FUNCTION(name) { … }`. */
#define PDK_FUNCTION(name)                                                                         \
    PDK_EXPORT(#name) int32_t name(void);                                                          \
    int32_t name(void)

/* An import of any namespace: `PDK_IMPORT("namespace", "name") int32_t name(int32_t, double);`.
 * Parameters and results are int32_t, int64_t, float, double, or a pdk_handle for text and bytes. */
#define PDK_IMPORT(namespace_, name)                                                               \
    __attribute__((import_module(namespace_), import_name(name))) extern

/* An import of the namespace that host functions have by default. */
#define PDK_HOST_FUNCTION(name) PDK_IMPORT("extism:host/user", name)

/* A block of the host's memory; 0 is none. */
typedef uint64_t pdk_handle;

/* The contract's own functions, for what the rest of this header does not do. */
#define PDK_ENV(name) PDK_IMPORT("extism:host/env", name)
PDK_ENV("alloc") pdk_handle extism_alloc(uint64_t size);
PDK_ENV("free") void extism_free(pdk_handle);
PDK_ENV("length") uint64_t extism_length(pdk_handle);
PDK_ENV("load_u8") uint32_t extism_load_u8(uint64_t at);
PDK_ENV("load_u64") uint64_t extism_load_u64(uint64_t at);
PDK_ENV("store_u8") void extism_store_u8(uint64_t at, uint32_t value);
PDK_ENV("store_u64") void extism_store_u64(uint64_t at, uint64_t value);
PDK_ENV("input_length") uint64_t extism_input_length(void);
PDK_ENV("input_load_u8") uint32_t extism_input_load_u8(uint64_t at);
PDK_ENV("input_load_u64") uint64_t extism_input_load_u64(uint64_t at);
PDK_ENV("output_set") void extism_output_set(pdk_handle, uint64_t size);
PDK_ENV("error_set") void extism_error_set(pdk_handle);
PDK_ENV("config_get") pdk_handle extism_config_get(pdk_handle key);
PDK_ENV("var_get") pdk_handle extism_var_get(pdk_handle key);
PDK_ENV("var_set") void extism_var_set(pdk_handle key, pdk_handle value);
PDK_ENV("http_request") pdk_handle extism_http_request(pdk_handle request, pdk_handle body);
PDK_ENV("http_status_code") int32_t extism_http_status_code(void);
PDK_ENV("http_headers") pdk_handle extism_http_headers(void);
PDK_ENV("get_log_level") int32_t extism_get_log_level(void);
PDK_ENV("log_trace") void extism_log_trace(pdk_handle text);
PDK_ENV("log_debug") void extism_log_debug(pdk_handle text);
PDK_ENV("log_info") void extism_log_info(pdk_handle text);
PDK_ENV("log_warn") void extism_log_warn(pdk_handle text);
PDK_ENV("log_error") void extism_log_error(pdk_handle text);

/* ---- bytes and blocks ------------------------------------------------------------------------- */

/* Bytes are copied in four words a turn, which is twice as fast as one, or in one where the compiler
 * is told to make small code (-Os). C++ plugins are large anyway. */
#if defined(__OPTIMIZE_SIZE__) && !defined(__cplusplus)
#define PDK_SMALL 1
#else
#define PDK_SMALL 0
#endif

/* A function that is not repeated where it is called: plugins stay small. */
#define PDK_SHARED static inline __attribute__((noinline))

/* Bytes in the plugin's memory. Text is UTF-8, and not null-terminated unless that is said. */
typedef struct pdk_bytes {
    char *data;
    size_t size;
} pdk_bytes;

/* The length of null-terminated text. */
static inline size_t pdk_length(const char *text) {
    size_t n = 0;
    while (text[n]) n++;
    return n;
}

/* Copies bytes of the plugin into the host's memory, from `at` on. */
PDK_SHARED void pdk_store(uint64_t at, const void *bytes, size_t n) {
    const char *from = (const char *)bytes;
    uint64_t words[4];
    size_t i = 0;
    for (; !PDK_SMALL && n - i >= 32; i += 32) {
        __builtin_memcpy(words, from + i, 32);
        extism_store_u64(at + i, words[0]);
        extism_store_u64(at + i + 8, words[1]);
        extism_store_u64(at + i + 16, words[2]);
        extism_store_u64(at + i + 24, words[3]);
    }
    for (; n - i >= 8; i += 8) {
        __builtin_memcpy(words, from + i, 8);
        extism_store_u64(at + i, words[0]);
    }
    for (; i < n; i++) extism_store_u8(at + i, (uint8_t)from[i]);
}

/* Copies bytes of the host's memory, from `at` on, into the plugin's. */
PDK_SHARED void pdk_load(uint64_t at, void *into, size_t n) {
    char *to = (char *)into;
    uint64_t words[4];
    size_t i = 0;
    for (; !PDK_SMALL && n - i >= 32; i += 32) {
        words[0] = extism_load_u64(at + i);
        words[1] = extism_load_u64(at + i + 8);
        words[2] = extism_load_u64(at + i + 16);
        words[3] = extism_load_u64(at + i + 24);
        __builtin_memcpy(to + i, words, 32);
    }
    for (; n - i >= 8; i += 8) {
        words[0] = extism_load_u64(at + i);
        __builtin_memcpy(to + i, words, 8);
    }
    for (; i < n; i++) to[i] = (char)extism_load_u8(at + i);
}

/* A new block with a copy of these bytes; 0 when there are none, or no room for them. */
PDK_SHARED pdk_handle pdk_block(const void *bytes, size_t n) {
    pdk_handle block = n ? extism_alloc(n) : 0;
    if (block) pdk_store(block, bytes, n);
    return block;
}

/* The same for null-terminated text. */
static inline pdk_handle pdk_text(const char *text) { return pdk_block(text, pdk_length(text)); }

/* The size of a block; 0 for none. */
static inline uint64_t pdk_size(pdk_handle block) { return extism_length(block); }

/* Copies at most `room` bytes of a block, and returns how long the whole block is. */
PDK_SHARED uint64_t pdk_read(pdk_handle block, void *into, size_t room) {
    uint64_t size = pdk_size(block);
    pdk_load(block, into, size < room ? (size_t)size : room);
    return size;
}

/* The same, and frees the block. */
static inline uint64_t pdk_read_take(pdk_handle block, void *into, size_t room) {
    uint64_t size = pdk_read(block, into, room);
    if (block) extism_free(block);
    return size;
}

/* ---- input, output and errors ----------------------------------------------------------------- */

/* The size of the input. */
static inline uint64_t pdk_input_size(void) { return extism_input_length(); }

/* Copies at most `room` bytes of the input, from offset `from` on, and returns how many. 0 means
 * that the input ends there. */
PDK_SHARED size_t pdk_input(uint64_t from, void *into, size_t room) {
    uint64_t size = extism_input_length(), left = from < size ? size - from : 0;
    size_t n = left < room ? (size_t)left : room, i = 0;
    char *to = (char *)into;
    uint64_t words[4];
    for (; !PDK_SMALL && n - i >= 32; i += 32) {
        words[0] = extism_input_load_u64(from + i);
        words[1] = extism_input_load_u64(from + i + 8);
        words[2] = extism_input_load_u64(from + i + 16);
        words[3] = extism_input_load_u64(from + i + 24);
        __builtin_memcpy(to + i, words, 32);
    }
    for (; n - i >= 8; i += 8) {
        words[0] = extism_input_load_u64(from + i);
        __builtin_memcpy(to + i, words, 8);
    }
    for (; i < n; i++) to[i] = (char)extism_input_load_u8(from + i);
    return n;
}

/* Ends a call with an error: `return pdk_fail_with(42, "…");`. A code of 0 is still an error. */
static inline int32_t pdk_fail_with(int32_t code, const char *message) {
    extism_error_set(pdk_text(message));
    return code;
}

static inline int32_t pdk_fail(const char *message) { return pdk_fail_with(1, message); }

/* Ends a call with a result: `return pdk_output(bytes, n);`. */
static inline int32_t pdk_output(const void *bytes, size_t n) {
    pdk_handle block = pdk_block(bytes, n);
    if (n && !block) return pdk_fail("no memory is left for the output");
    extism_output_set(block, n);
    return 0;
}

static inline int32_t pdk_output_text(const char *text) {
    return pdk_output(text, pdk_length(text));
}

/* The same for a block, e.g. of a host function: nothing is copied. */
static inline int32_t pdk_output_block(pdk_handle block) {
    extism_output_set(block, pdk_size(block));
    return 0;
}

/* ---- config and vars -------------------------------------------------------------------------- */

/* Copies at most `room` bytes of a value of the config, and returns how long the whole value is: 0
 * when it is not set. */
static inline uint64_t pdk_config(const char *key, void *into, size_t room) {
    return pdk_read_take(extism_config_get(pdk_text(key)), into, room);
}

/* The same for a var, which the host keeps from one call to the next. */
static inline uint64_t pdk_var(const char *name, void *into, size_t room) {
    return pdk_read_take(extism_var_get(pdk_text(name)), into, room);
}

/* Sets a var. With n = 0 it is deleted. The call fails if the host's limit is exceeded. */
static inline void pdk_var_set(const char *name, const void *bytes, size_t n) {
    pdk_handle key = pdk_text(name);
    extism_var_set(key, pdk_block(bytes, n));
}

static inline void pdk_var_delete(const char *name) { extism_var_set(pdk_text(name), 0); }

/* ---- logging ---------------------------------------------------------------------------------- */

typedef enum pdk_level { PDK_TRACE, PDK_DEBUG, PDK_INFO, PDK_WARN, PDK_ERROR } pdk_level;

/* Whether the host keeps messages of this level. */
static inline int pdk_log_enabled(pdk_level level) { return (int32_t)level >= extism_get_log_level(); }

/* Logs a message, if the host keeps such messages; nothing is copied if not. */
static inline void pdk_log(pdk_level level, const char *message) {
    if (!pdk_log_enabled(level)) return;
    pdk_handle text = pdk_text(message);
    switch (level) {
    case PDK_TRACE: extism_log_trace(text); break;
    case PDK_DEBUG: extism_log_debug(text); break;
    case PDK_INFO: extism_log_info(text); break;
    case PDK_WARN: extism_log_warn(text); break;
    default: extism_log_error(text);
    }
}

/* ---- writing text ----------------------------------------------------------------------------- */

/* Each writes something at `to`, and returns where the next thing goes. The room is the caller's:
 * pdk_put_json() takes up to 6 n + 2 bytes, numbers up to 20. */
PDK_SHARED char *pdk_put(char *to, const char *text) {
    while (*text) *to++ = *text++;
    return to;
}

PDK_SHARED char *pdk_put_u64(char *to, uint64_t value) {
    char digits[20];
    size_t n = 0;
    do digits[n++] = (char)('0' + value % 10);
    while (value /= 10);
    while (n) *to++ = digits[--n];
    return to;
}

static inline char *pdk_put_i64(char *to, int64_t value) {
    if (value < 0) *to++ = '-';
    return pdk_put_u64(to, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

/* Text as a JSON string, with its quotes. */
PDK_SHARED char *pdk_put_json(char *to, const char *text, size_t n) {
    *to++ = '"';
    for (size_t i = 0; i < n; i++) {
        uint8_t c = (uint8_t)text[i];
        if (c < 0x20) {
            to = pdk_put(to, "\\u00");
            *to++ = (char)('0' + (c >> 4));
            *to++ = (char)((c & 15) + ((c & 15) < 10 ? '0' : 'a' - 10));
            continue;
        }
        if (c == '"' || c == '\\') *to++ = '\\';
        *to++ = (char)c;
    }
    *to++ = '"';
    return to;
}

/* ---- HTTP ------------------------------------------------------------------------------------- */

/* A header of a request: name and value, null-terminated. */
typedef struct pdk_header {
    const char *name, *value;
} pdk_header;

typedef struct pdk_request {
    const char *method; /* NULL is GET */
    const char *url;
    const pdk_header *headers;
    size_t header_count;
    const void *body;
    size_t body_size;
} pdk_request;

/* The answer of a server. A status that is no success (404, …) is no error. */
typedef struct pdk_response {
    int32_t status;
    pdk_handle body;    /* 0 when it is empty */
    pdk_handle headers; /* JSON, names in lower case; 0 where the host does not tell them */
} pdk_response;

/* Writes text into the host's memory as pdk_put_json() does. */
static inline uint64_t pdk_store_json(uint64_t at, const char *text) {
    char piece[8];
    for (extism_store_u8(at++, '"'); *text; text++) {
        size_t n = (size_t)(pdk_put_json(piece, text, 1) - piece) - 2;
        pdk_store(at, piece + 1, n);
        at += n;
    }
    extism_store_u8(at, '"');
    return at + 1;
}

/* Sends a request. The host must allow it: otherwise, and if no answer comes, the call ends here
 * with the host's error. Both handles belong to the plugin. */
PDK_SHARED pdk_response pdk_http(const pdk_request *request) {
    const char *method = request->method ? request->method : "GET";
    size_t room = 64 + 6 * (pdk_length(method) + pdk_length(request->url));
    for (size_t i = 0; i < request->header_count; i++)
        room += 8 + 6 * (pdk_length(request->headers[i].name) + pdk_length(request->headers[i].value));
    pdk_handle document = extism_alloc(room);
    uint64_t at = document, end = document + room;
    pdk_store(at, "{\"method\":", 10);
    at = pdk_store_json(at + 10, method);
    pdk_store(at, ",\"url\":", 7);
    at = pdk_store_json(at + 7, request->url);
    pdk_store(at, ",\"headers\":{", 12);
    at += 12;
    for (size_t i = 0; i < request->header_count; i++) {
        if (i) extism_store_u8(at++, ',');
        at = pdk_store_json(at, request->headers[i].name);
        extism_store_u8(at++, ':');
        at = pdk_store_json(at, request->headers[i].value);
    }
    pdk_store(at, "}}", 2);
    for (at += 2; at < end; at++) extism_store_u8(at, ' ');
    pdk_handle body = extism_http_request(document, pdk_block(request->body, request->body_size));
    pdk_response response = {extism_http_status_code(), body, extism_http_headers()};
    return response;
}

/* ---- memory ----------------------------------------------------------------------------------- */

#if !defined(PDK_NO_ARENA) && !(defined(__wasi__) && defined(__cplusplus))
#define PDK_HAS_ARENA 1
#ifdef __wasi__

/* Where there is a C library, its malloc() manages the memory: the arena is a list of its blocks. */
typedef struct pdk_piece {
    struct pdk_piece *next;
} pdk_piece;
static pdk_piece *pdk_pieces;

/* Memory that lasts until the next pdk_reset(); NULL when the host gives no more. */
PDK_SHARED void *pdk_take(size_t n) {
    const size_t head = 16; /* keeps the alignment of malloc() */
    pdk_piece *piece = n <= SIZE_MAX - head ? (pdk_piece *)malloc(head + n) : NULL;
    if (!piece) return NULL;
    piece->next = pdk_pieces;
    pdk_pieces = piece;
    return (char *)piece + head;
}

/* Lets go of all memory of pdk_take() and pdk_input_all(). */
PDK_SHARED void pdk_reset(void) {
    while (pdk_pieces) {
        pdk_piece *next = pdk_pieces->next;
        free(pdk_pieces);
        pdk_pieces = next;
    }
}

#else

extern uint8_t __heap_base;
static uintptr_t pdk_arena_top;

/* Memory that lasts until the next pdk_reset(); NULL when the host gives no more. */
PDK_SHARED void *pdk_take(size_t n) {
    uintptr_t start = ((pdk_arena_top ? pdk_arena_top : (uintptr_t)&__heap_base) + 15) & ~(uintptr_t)15;
    uint64_t end = (uint64_t)start + n, have = (uint64_t)__builtin_wasm_memory_size(0) << 16;
    if (end > UINT32_MAX) return NULL;
    if (end > have &&
        __builtin_wasm_memory_grow(0, (size_t)((end - have + 65535) >> 16)) == SIZE_MAX)
        return NULL;
    pdk_arena_top = (uintptr_t)end;
    return (void *)start;
}

/* Lets go of all memory of pdk_take() and pdk_input_all(). */
static inline void pdk_reset(void) { pdk_arena_top = 0; }

#endif

/* The whole input, with a null character after its last byte. `data` is NULL when it does not fit
 * into memory. */
static inline pdk_bytes pdk_input_all(void) {
    uint64_t size = pdk_input_size();
    pdk_bytes all = {size < UINT32_MAX ? (char *)pdk_take((size_t)size + 1) : NULL, 0};
    if (!all.data) return all;
    all.size = pdk_input(0, all.data, (size_t)size);
    all.data[all.size] = 0;
    return all;
}

/* The same for a block, which is freed. */
static inline pdk_bytes pdk_take_block(pdk_handle block) {
    uint64_t size = pdk_size(block);
    pdk_bytes all = {size < UINT32_MAX ? (char *)pdk_take((size_t)size + 1) : NULL, 0};
    if (all.data) {
        all.size = (size_t)pdk_read(block, all.data, (size_t)size);
        all.data[all.size] = 0;
    }
    if (block) extism_free(block);
    return all;
}
#endif

#ifdef __cplusplus
}
#pragma GCC diagnostic pop
#endif

#endif
