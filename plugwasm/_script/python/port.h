/* The parts of the Python engine, for each other. */
#ifndef PORT_H
#define PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "py/obj.h"

/* Makes the heap. Returns whether there was memory. */
bool port_init_heap(void);

/* Whether a script is being loaded: then there is no host. */
extern bool port_is_loading;

/* Raises RuntimeError while a script is being loaded. */
void port_need_host(const char *what);

/* Takes new random numbers, if those there are have the seed of loading. */
void port_renew_seed(void);

/* Passes on what was printed so far, also without the end of its line. */
void port_flush_output(void);

/* Raises ValueError, with `what` in its text, if these bytes are no UTF-8. */
void port_need_utf8(const byte *text, size_t size, const char *what);

/* See json.c. */
mp_obj_t port_text(vstr_t *text);
mp_obj_t port_read_json(const byte *text, size_t size, const char *what);
void port_write_json(vstr_t *into, mp_obj_t value, mp_obj_t other);

#endif
