#include "plugwasm.h"

PDK_FUNCTION(hello) {
    pdk_reset();
    pdk_bytes name = pdk_input_all();
    char *text = pdk_take(name.size + 8);
    if (!name.data || !text) return pdk_fail("no memory is left");
    char *end = pdk_put(pdk_put(pdk_put(text, "Hello, "), name.data), "!");
    return pdk_output(text, (size_t)(end - text));
}
