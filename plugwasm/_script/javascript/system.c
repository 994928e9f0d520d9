/* What QuickJS needs of a system, and what there is of one. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "glue.h"

__attribute__((import_module("wasi_snapshot_preview1"), import_name("random_get"))) extern int32_t
wasi_random_get(void *into, size_t size);

static void *note_memory(void *memory) {
    if (!memory) is_out_of_memory = 1;
    return memory;
}

static void *take_zeros(void *opaque, size_t count, size_t size) {
    (void)opaque;
    return note_memory(calloc(count, size));
}

static void *take(void *opaque, size_t size) {
    (void)opaque;
    return note_memory(malloc(size));
}

/* What is freed before a snapshot would be in it. */
static void give_back(void *opaque, void *memory) {
    (void)opaque;
    if (is_loading && memory) memset(memory, 0, malloc_usable_size(memory));
    free(memory);
}

static void *resize(void *opaque, void *memory, size_t size) {
    return size ? note_memory(realloc(memory, size)) : (give_back(opaque, memory), NULL);
}

static size_t usable_size(const void *memory) { return malloc_usable_size((void *)memory); }

const JSMallocFunctions allocator = {take_zeros, take, give_back, resize, usable_size};

/* QuickJS can print, for those who debug it; nothing here does, and there is nowhere to print to. */
int printf(const char *format, ...) { (void)format; return 0; }
int fprintf(FILE *file, const char *format, ...) { (void)file, (void)format; return 0; }
int putchar(int character) { return character; }
int puts(const char *text) { (void)text; return 0; }
int fputs(const char *text, FILE *file) { (void)text, (void)file; return 0; }
int fputc(int character, FILE *file) { (void)file; return character; }
_Noreturn void __assert_fail(const char *what, const char *file, int line, const char *function) {
    (void)what, (void)file, (void)line, (void)function;
    __builtin_trap();
}

/* Random numbers before the script is loaded are the same each time, so that a snapshot is. */
static uint64_t random_state;

void seed_random(void) { random_state = 1; }

void random_bytes(void *into, size_t size) {
    if (!is_loading) {
        wasi_random_get(into, size);
        return;
    }
    uint8_t *to = into;
    for (size_t i = 0; i < size; i++) {
        random_state = random_state * 6364136223846793005u + 1442695040888963407u;
        to[i] = (uint8_t)(random_state >> 56);
    }
}

/* A number below 1, of 53 bits, by xorshift64*. The state is 0 until the first one is asked for. */
double random_number(void) {
    static uint64_t state;
    static int was_loading;
    if (!state || was_loading != is_loading) {
        do random_bytes(&state, sizeof state);
        while (!state);
        was_loading = is_loading;
    }
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (double)((state * 2685821657736338717u) >> 11) * 0x1p-53;
}

/* Requests and sleeping are functions of their own, so that a plugin of one module that cannot use
 * them need not import what they call: they have the names and the types of these imports. */
PDK_EXPORT("http_request") __attribute__((noinline)) uint64_t ask_http(uint64_t request, uint64_t body) {
    return extism_http_request(request, body);
}

__attribute__((import_module("wasi_snapshot_preview1"), import_name("poll_oneoff"))) extern int32_t
wasi_poll_oneoff(const void *in, void *out, size_t count, size_t *events);

PDK_EXPORT("poll_oneoff") __attribute__((noinline)) int32_t poll_clock(const void *in, void *out, size_t count, size_t *events) {
    return wasi_poll_oneoff(in, out, count, events);
}

void sleep_for(double milliseconds) {
    struct {
        uint64_t userdata;
        uint64_t tag; /* 0: a clock */
        uint64_t clock, timeout, precision, flags;
    } subscription = {.clock = 1, .timeout = (uint64_t)(milliseconds * 1e6)};
    uint64_t event[4];
    size_t count;
    if (milliseconds > 0) poll_clock(&subscription, event, 1, &count);
}

double read_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}
