/* wasi_files: an ordinary C program of files and streams, on WASI. It sees the directories of allowed_paths and nothing else.
 *
 *     cat     input: a path                           output: the content of the file
 *     list    input: a path                           output: the names in the directory, sorted, one a line
 *     write   input: a path, a newline, the content   output: how many bytes were written
 *     say     input: a text, which goes to stdout, and in upper case to stderr */
#include "plugwasm.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int32_t fail_at(const char *what, const char *path) {
    char text[512];
    snprintf(text, sizeof text, "cannot %s %s: %s", what, path, strerror(errno));
    return pdk_fail(text);
}

/* The input with a 0 after it, for the caller to free. */
static char *input_text(size_t *size) {
    *size = (size_t)extism_input_length();
    char *text = malloc(*size + 1);
    if (!text) return NULL;
    *size = pdk_input(0, text, *size);
    text[*size] = 0;
    return text;
}

static int32_t cat(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) return fail_at("open", path);
    char *bytes = NULL;
    size_t n = 0, room = 0, got = 1;
    while (got) {
        if (n == room) {
            char *more = realloc(bytes, room + room / 2 + 4096);
            if (!more) break;
            bytes = more;
            room += room / 2 + 4096;
        }
        n += got = fread(bytes + n, 1, room - n, file);
    }
    int32_t code = ferror(file) ? fail_at("read", path)
                   : got        ? pdk_fail("the file does not fit into memory")
                                : pdk_output(bytes, n);
    free(bytes);
    fclose(file);
    return code;
}

static int by_name(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

static int is_entry(const struct dirent *entry) { return strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."); }

static int32_t list(const char *path) {
    struct dirent **entries;
    int n = scandir(path, &entries, is_entry, by_name);
    if (n < 0) return fail_at("list", path);
    size_t size = 0;
    for (int i = 0; i < n; i++) size += strlen(entries[i]->d_name) + 1;
    char *names = malloc(size + 1), *end = names;
    for (int i = 0; i < n; i++) {
        if (names) end = pdk_put(pdk_put(end, entries[i]->d_name), "\n");
        free(entries[i]);
    }
    free(entries);
    int32_t code = names ? pdk_output(names, size) : pdk_fail("the names do not fit into memory");
    free(names);
    return code;
}

static int32_t write_file(const char *path, const char *content, size_t n) {
    char count[24];
    FILE *file = fopen(path, "wb");
    if (!file) return fail_at("open", path);
    int failed = fwrite(content, 1, n, file) != n;
    if (fclose(file) || failed) return fail_at("write", path);
    return pdk_output(count, (size_t)snprintf(count, sizeof count, "%zu", n));
}

PDK_EXPORT("cat") int32_t export_cat(void) {
    size_t n;
    char *path = input_text(&n);
    int32_t code = path ? cat(path) : pdk_fail("the path does not fit into memory");
    free(path);
    return code;
}

PDK_EXPORT("list") int32_t export_list(void) {
    size_t n;
    char *path = input_text(&n);
    int32_t code = path ? list(path) : pdk_fail("the path does not fit into memory");
    free(path);
    return code;
}

PDK_EXPORT("write") int32_t export_write(void) {
    size_t n;
    char *text = input_text(&n);
    char *newline = text ? memchr(text, '\n', n) : NULL;
    if (!newline) {
        free(text);
        return pdk_fail("the input must be a path, a newline and the content");
    }
    *newline = 0;
    int32_t code = write_file(text, newline + 1, n - (size_t)(newline + 1 - text));
    free(text);
    return code;
}

PDK_FUNCTION(say) {
    size_t n;
    char *text = input_text(&n);
    if (!text) return pdk_fail("the text does not fit into memory");
    fwrite(text, 1, n, stdout);
    fputc('\n', stdout);
    fflush(stdout);
    for (size_t i = 0; i < n; i++) fputc(toupper((unsigned char)text[i]), stderr);
    fputc('\n', stderr);
    free(text);
    return 0;
}
