#include "plugwasm.h"

PDK_FUNCTION(count_vowels) {
    static char vowels[256], piece[4096], json[2000];
    uint64_t n = pdk_config("vowels", vowels, sizeof vowels), total = 0, count = 0;
    if (n > sizeof vowels) return pdk_fail("config: too many vowels");
    if (!n) n = (uint64_t)(pdk_put(vowels, "aeiouAEIOU") - vowels);
    for (size_t at = 0, got; (got = pdk_input(at, piece, sizeof piece)); at += got)
        for (size_t i = 0; i < got; i++)
            for (size_t k = 0; k < n; k++) count += piece[i] == vowels[k];
    pdk_var("total", &total, sizeof total);
    total += count;
    pdk_var_set("total", &total, sizeof total);
    char *end = pdk_put_u64(pdk_put(json, "{\"count\":"), count);
    end = pdk_put_u64(pdk_put(end, ",\"total\":"), total);
    end = pdk_put(pdk_put_json(pdk_put(end, ",\"vowels\":"), vowels, (size_t)n), "}");
    return pdk_output(json, (size_t)(end - json));
}
