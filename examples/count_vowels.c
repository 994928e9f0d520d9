/* count_vowels: config and vars. Counts the vowels of its input, which it reads piece by piece, so that it may be of any size.
 *
 * The config entry "vowels" says what counts as one (UTF-8, default aeiouAEIOU); the var "total" adds up over the calls of one
 * plugin. */
#include "plugwasm.h"

#define MAX_VOWELS 1024

static uint8_t is_ascii_vowel[128];
static uint32_t others[MAX_VOWELS];
static size_t n_others;

struct utf8 {
    uint32_t code_point;
    int missing;
};

/* True when this byte completes a code point. */
static int feed(struct utf8 *text, uint8_t byte) {
    if (byte < 0x80 || byte >= 0xC0) {
        text->missing = byte < 0x80 ? 0 : byte >= 0xF0 ? 3 : byte >= 0xE0 ? 2 : 1;
        text->code_point = byte < 0x80 ? byte : byte & (0x3Fu >> text->missing);
        return byte < 0x80;
    }
    text->code_point = text->code_point << 6 | (byte & 0x3F);
    return text->missing > 0 && --text->missing == 0;
}

static int is_vowel(uint32_t code_point) {
    if (code_point < 128) return is_ascii_vowel[code_point];
    for (size_t i = 0; i < n_others; i++)
        if (others[i] == code_point) return 1;
    return 0;
}

static void learn(const char *vowels, size_t n) {
    struct utf8 text = {0, 0};
    n_others = 0;
    for (size_t i = 0; i < sizeof is_ascii_vowel; i++) is_ascii_vowel[i] = 0;
    for (size_t i = 0; i < n; i++) {
        if (!feed(&text, (uint8_t)vowels[i])) continue;
        if (text.code_point < 128) is_ascii_vowel[text.code_point] = 1;
        else others[n_others++] = text.code_point;
    }
}

PDK_FUNCTION(count_vowels) {
    static char vowels[MAX_VOWELS], piece[4096], json[6 * MAX_VOWELS + 100];
    uint64_t n = pdk_config("vowels", vowels, sizeof vowels), count = 0, total = 0;
    if (n > sizeof vowels) return pdk_fail("config \"vowels\" is longer than 1024 bytes");
    if (n == 0) n = (uint64_t)(pdk_put(vowels, "aeiouAEIOU") - vowels);
    learn(vowels, (size_t)n);

    struct utf8 text = {0, 0};
    for (uint64_t at = 0, got; (got = pdk_input(at, piece, sizeof piece)); at += got)
        for (size_t i = 0; i < got; i++) count += (uint64_t)(feed(&text, (uint8_t)piece[i]) && is_vowel(text.code_point));

    pdk_var("total", &total, sizeof total);
    total += count;
    pdk_var_set("total", &total, sizeof total);

    char *end = pdk_put_u64(pdk_put(json, "{\"count\":"), count);
    end = pdk_put_u64(pdk_put(end, ",\"total\":"), total);
    end = pdk_put_json(pdk_put(end, ",\"vowels\":"), vowels, (size_t)n);
    *end++ = '}';
    return pdk_output(json, (size_t)(end - json));
}
