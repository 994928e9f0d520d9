#include "plugwasm.h"

PDK_FUNCTION(greet) {
    pdk_bytes name = pdk_input_all();
    if (!name.data) return pdk_fail("the name does not fit into memory");
    if (name.size == 0) return pdk_fail_with(2, "no name was given");

    char word[32] = "Hello";
    uint64_t size = pdk_config("greeting", word, sizeof word - 1);
    if (size > sizeof word - 1) return pdk_fail("the greeting is too long");
    if (size > 0) word[size] = 0;

    char *greeting = pdk_take(sizeof word + name.size + 4), *end = greeting;
    if (!greeting) return pdk_fail("the greeting does not fit into memory");
    end = pdk_put(end, word);
    end = pdk_put(end, ", ");
    end = pdk_put(end, name.data);
    end = pdk_put(end, "!");
    return pdk_output(greeting, (size_t)(end - greeting));
}
