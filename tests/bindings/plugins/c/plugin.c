// The plugin of the round-trip tests in C.

#include "bindings.h"

int32_t plugin_echo_everything(pdk_bytes input) { return return_echo_everything(input); }

int32_t plugin_echo_shape(pdk_bytes input) { return return_echo_shape(input); }

int32_t plugin_echo_tree(pdk_bytes input) { return return_echo_tree(input); }

int32_t plugin_echo_expression(pdk_bytes input) { return return_echo_expression(input); }

int32_t plugin_echo_text(pdk_bytes input) { return return_echo_text(input); }

int32_t plugin_echo_bytes(pdk_bytes input) { return return_echo_bytes(input); }

int32_t plugin_echo_json_text(pdk_bytes input) { return return_echo_json_text(input); }

int32_t plugin_echo_json_bytes(pdk_bytes input) { return return_echo_json_bytes(input); }

int32_t plugin_echo_list(pdk_bytes input) { return return_echo_list(input); }

int32_t plugin_echo_map(pdk_bytes input) { return return_echo_map(input); }

int32_t plugin_fruit_to_json(fruit input) {
    char json[256];
    const pdk_bytes text = fruit_to_text(input);
    const pdk_bytes output = {json, (size_t)(pdk_put_json(json, text.data, text.size) - json)};
    return return_fruit_to_json(output);
}

int32_t plugin_fruit_to_text(pdk_bytes input) {
    for (fruit value = FRUIT_APPLE; value <= FRUIT_BACK_SLASH_QUOTED; value++) {
        char json[256];
        const pdk_bytes text = fruit_to_text(value);
        const size_t size = (size_t)(pdk_put_json(json, text.data, text.size) - json);
        if (bindings_equal(input, json, size)) return return_fruit_to_text(value);
    }
    return pdk_fail("no such fruit");
}

int32_t plugin_negate(int input) { return return_negate(!input); }

int32_t plugin_double(int32_t input) { return return_double((int64_t)input * 2); }

int32_t plugin_maybe(pdk_bytes input) { return return_maybe(input); }

int32_t plugin_nothing(void) {
    host_ping();
    return 0;
}

int32_t plugin_call_host(pdk_bytes input) {
    pdk_bytes output;
    if (!host_visit(input, &output)) return pdk_fail("no answer");
    return return_call_host(output);
}

int32_t plugin_call_host_text(pdk_bytes input) {
    pdk_bytes output;
    if (!host_translate(input, &output)) return pdk_fail("no answer");
    return return_call_host_text(output);
}

int32_t plugin_call_host_fruit(pdk_bytes input) {
    int output;
    fruit value;
    if (input.size < 2) return pdk_fail("no such fruit");
    input.data++;
    input.size -= 2;
    if (!fruit_from_text(input, &value)) return pdk_fail("no such fruit");
    if (!host_eat_fruit(value, &output)) return pdk_fail("no answer");
    return return_call_host_fruit(output);
}

int32_t plugin_call_host_bytes(pdk_bytes input) {
    pdk_bytes output;
    if (!host_mix_bytes(input, &output)) return pdk_fail("no answer");
    return return_call_host_bytes(output);
}

int32_t plugin_call_host_number(int64_t input) {
    int64_t output;
    if (!host_add_one(input, &output)) return pdk_fail("no answer");
    return return_call_host_number(output);
}

int32_t plugin_fail(pdk_bytes input) {
    char message[64];
    if (input.size > 32) input.size = 32;
    char *end = pdk_put(message, "failed: ");
    for (size_t i = 0; i < input.size; i++) *end++ = input.data[i];
    *end = 0;
    return pdk_fail_with(7, message);
}
