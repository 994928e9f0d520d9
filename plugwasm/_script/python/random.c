/* MicroPython's random numbers, with a seed of the system in each instance.
 *
 * MicroPython takes a seed when the module is imported, which mostly is while the script is loaded:
 * all instances would have the same numbers. So the first call takes another one, unless the script
 * has set a seed of its own.
 */
#include "py/obj.h"

#include "port.h"

static bool is_seed_of_loading;

#define WASI(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(name))) extern
WASI("random_get") uint32_t wasi_random_get(void *into, size_t size);

uint32_t port_random_seed(void) {
    uint32_t seed = 0x6b8b4567;
    is_seed_of_loading = port_is_loading;
    if (!port_is_loading) wasi_random_get(&seed, sizeof seed);
    return seed;
}

static mp_int_t take_seed(mp_obj_t given) {
    mp_int_t seed = mp_obj_get_int_truncated(given);
    is_seed_of_loading = false;
    return seed;
}

#define mp_obj_get_int_truncated take_seed
#include "extmod/modrandom.c"
#undef mp_obj_get_int_truncated

void port_renew_seed(void) {
    if (is_seed_of_loading) mod_random_seed(0, NULL);
}
