/* echo: the costs of the plugin contract, one at a time. Copies of any size, allocations, an endless loop, and nothing at all. */
#include "plugwasm.h"

/* Through the plugin's own memory, as plugins of every PDK do. */
PDK_FUNCTION(echo) {
    pdk_reset();
    pdk_bytes bytes = pdk_input_all();
    if (!bytes.data) return pdk_fail("the input does not fit into memory");
    return pdk_output(bytes.data, bytes.size);
}

/* From block to block, the plugin's own memory untouched. */
PDK_FUNCTION(kernel_copy) {
    uint64_t n = extism_input_length(), i = 0;
    pdk_handle out = n ? extism_alloc(n) : 0;
    if (n && !out) return pdk_fail("no memory left for the output");
    for (; n - i >= 8; i += 8) extism_store_u64(out + i, extism_input_load_u64(i));
    for (; i < n; i++) extism_store_u8(out + i, extism_input_load_u8(i));
    extism_output_set(out, n);
    return 0;
}

/* Input: a decimal N. Allocates N blocks of 16 bytes, asks for the length of each at once, and keeps them all. Output: the sum of
 * the lengths. */
PDK_FUNCTION(alloc_length) {
    char text[24];
    size_t size = pdk_input(0, text, sizeof text);
    uint64_t rounds = 0, total = 0;
    if (size == 0 || size > 18) return pdk_fail("the input must be a decimal number of rounds");
    for (size_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9') return pdk_fail("the input must be a decimal number of rounds");
        rounds = rounds * 10 + (uint64_t)(text[i] - '0');
    }
    for (uint64_t i = 0; i < rounds; i++) {
        pdk_handle block = extism_alloc(16);
        if (!block) return pdk_fail("no memory left for another block");
        total += extism_length(block);
    }
    return pdk_output(text, (size_t)(pdk_put_u64(text, total) - text));
}

PDK_FUNCTION(spin) {
    for (;;) __asm__ volatile("");
}

PDK_FUNCTION(nop) { return 0; }
