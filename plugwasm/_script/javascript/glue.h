/* What the files of the engine share. */
#include <stddef.h>
#include <stdint.h>

#include "plugwasm.h"
#include "quickjs.h"

/* ---- glue.c ----------------------------------------------------------------------------------- */

extern JSContext *context;

/* Whether the script is being loaded: then it cannot ask the host anything. */
extern int is_loading;

/* Whether memory has run out since the call began: then there may be none for the exception. */
extern int is_out_of_memory;

/* Bytes that a value of JavaScript stands for: text as UTF-8, or the content of a buffer. */
typedef struct view {
    const uint8_t *data;
    size_t size;
    const char *text; /* to be freed */
} view;

/* Returns 0, or -1 with an exception. */
int view_bytes(JSValueConst value, view *into);
void free_view(view *bytes);

/* ---- system.c --------------------------------------------------------------------------------- */

extern const JSMallocFunctions allocator;

/* Sets the state of random numbers that are the same each time. */
void seed_random(void);
void random_bytes(void *into, size_t size);
double random_number(void);

/* Milliseconds. */
double read_clock(void);
void sleep_for(double milliseconds);

uint64_t ask_http(uint64_t request, uint64_t body);

/* ---- urls.c ----------------------------------------------------------------------------------- */

/* The normal form of a URL, or null. */
JSValue parse_url(JSValueConst text, JSValueConst base);

/* A part of a URL; with a value for it, the URL with that part. */
JSValue url_part(JSValueConst href, JSValueConst part, JSValueConst value);

/* The names and values of a query, one after the other. */
JSValue parse_query(JSValueConst text);

/* The text of a query with these names and values. */
JSValue query_text(JSValueConst list);
