/* bench_wasi: as little as a plugin for WASI can be, to see what WASI adds to the cost of an instance.
 *
 *     echo           input to output
 *     surroundings   what WASI shows of the world outside, as JSON */
#include "plugwasm.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>
#include <wasi/api.h>

PDK_FUNCTION(echo) {
    size_t n = (size_t)extism_input_length();
    char *bytes = malloc(n + 1);
    if (!bytes) return pdk_fail("the input does not fit into memory");
    int32_t code = pdk_output(bytes, pdk_input(0, bytes, n));
    free(bytes);
    return code;
}

PDK_FUNCTION(surroundings) {
    char json[160], byte, drawn[16], zeros[16] = {0};
    size_t arguments = 0, variables = 0, size;
    struct timespec now = {0, 0};
    __wasi_errno_t no_arguments = __wasi_args_sizes_get(&arguments, &size);
    __wasi_errno_t no_variables = __wasi_environ_sizes_get(&variables, &size);
    int clock = clock_gettime(CLOCK_REALTIME, &now) == 0 && now.tv_sec > 0;
    int random = getentropy(drawn, sizeof drawn) == 0 && memcmp(drawn, zeros, sizeof drawn) != 0;
    char *end = pdk_put_u64(pdk_put(json, "{\"arguments\":"), no_arguments ? 0 : arguments);
    end = pdk_put_u64(pdk_put(end, ",\"variables\":"), no_variables ? 0 : variables);
    end = pdk_put(pdk_put(end, ",\"stdin\":"), read(0, &byte, 1) > 0 ? "true" : "false");
    end = pdk_put(pdk_put(end, ",\"clock\":"), clock ? "true" : "false");
    end = pdk_put(pdk_put(end, ",\"random\":"), random ? "true}" : "false}");
    return pdk_output(json, (size_t)(end - json));
}
