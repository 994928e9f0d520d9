/* The test plugin of the conformance suite in C, without a C library. */
#include "plugwasm.h"

PDK_HOST_FUNCTION("host_i32") int32_t host_i32(int32_t);
PDK_HOST_FUNCTION("host_i64") int64_t host_i64(int64_t);
PDK_HOST_FUNCTION("host_f32") float host_f32(float);
PDK_HOST_FUNCTION("host_f64") double host_f64(double);
PDK_HOST_FUNCTION("host_text") pdk_handle host_text(pdk_handle);
PDK_HOST_FUNCTION("host_bytes") pdk_handle host_bytes(pdk_handle);
PDK_IMPORT("conformance:host", "host_other") void host_other(void);

/* The whole input; memory of the call before is let go. */
static pdk_bytes input(void) {
    pdk_reset();
    return pdk_input_all();
}

/* Ends the first line in place, and returns what follows it. */
static char *next_line(char *text) {
    while (*text && *text != '\n') text++;
    if (*text) *text++ = 0;
    return text;
}

static int64_t parse(const char *text) {
    int negative = *text == '-';
    uint64_t value = 0;
    for (text += negative; *text >= '0' && *text <= '9'; text++) value = value * 10 + (uint64_t)(*text - '0');
    return (int64_t)(negative ? 0 - value : value);
}

static int32_t output_number(int64_t value) {
    char text[24];
    return pdk_output(text, (size_t)(pdk_put_i64(text, value) - text));
}

PDK_FUNCTION(echo) {
    pdk_bytes bytes = input();
    return pdk_output(bytes.data, bytes.size);
}

PDK_FUNCTION(utf8) {
    pdk_bytes bytes = input();
    uint8_t *text = (uint8_t *)bytes.data;
    size_t size = bytes.size, i = 0;
    int64_t count = 0;
    for (; i < size; count++) {
        uint8_t lead = text[i++];
        int more = lead < 0x80 ? 0 : lead < 0xC2 ? -1 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : lead < 0xF5 ? 3 : -1;
        uint32_t point = lead & (0x7Fu >> (more > 0 ? more + 1 : 0));
        if (more < 0 || size - i < (size_t)more) return pdk_fail("not UTF-8");
        for (int k = 0; k < more; k++, i++) {
            if ((text[i] & 0xC0) != 0x80) return pdk_fail("not UTF-8");
            point = point << 6 | (text[i] & 0x3F);
        }
        if ((more == 2 && point < 0x800) || (more == 3 && (point < 0x10000 || point > 0x10FFFF)) || (point >= 0xD800 && point < 0xE000))
            return pdk_fail("not UTF-8");
    }
    return output_number(count);
}

PDK_FUNCTION(count_vowels) {
    static char vowels[256], json[2000];
    uint64_t n = pdk_config("vowels", vowels, sizeof vowels - 1), total = 0, count = 0;
    if (n >= sizeof vowels) return pdk_fail("too many vowels");
    if (!n) n = (uint64_t)(pdk_put(vowels, "aeiouAEIOU") - vowels);
    pdk_bytes text = input();
    for (size_t i = 0; i < text.size; i++)
        for (size_t k = 0; k < n; k++) count += text.data[i] == vowels[k];
    pdk_var("total", &total, sizeof total);
    total += count;
    pdk_var_set("total", &total, sizeof total);
    char *end = pdk_put_u64(pdk_put(json, "{\"count\": "), count);
    end = pdk_put_u64(pdk_put(end, ", \"total\": "), total);
    end = pdk_put(pdk_put_json(pdk_put(end, ", \"vowels\": "), vowels, (size_t)n), "}");
    return pdk_output(json, (size_t)(end - json));
}

static int32_t output_value(pdk_handle block) {
    if (!block) return pdk_output_text("unset");
    size_t size = (size_t)pdk_size(block);
    char *value = pdk_take(size + 1);
    value[0] = '=';
    pdk_read_take(block, value + 1, size);
    return pdk_output(value, size + 1);
}

PDK_FUNCTION(config_get) { return output_value(extism_config_get(pdk_text(input().data))); }

PDK_FUNCTION(var_get) { return output_value(extism_var_get(pdk_text(input().data))); }

PDK_FUNCTION(var_set) {
    pdk_bytes line = input();
    char *value = next_line(line.data);
    pdk_var_set(line.data, value, line.size - (size_t)(value - line.data));
    return 0;
}

PDK_FUNCTION(var_delete) {
    pdk_var_delete(input().data);
    return 0;
}

PDK_FUNCTION(fail) {
    char *code = input().data, *message = next_line(code);
    return pdk_fail_with((int32_t)parse(code), message);
}

PDK_FUNCTION(panic) { __builtin_trap(); }

PDK_FUNCTION(log_message) {
    char *level = input().data, *message = next_line(level);
    pdk_log(*level == 't'   ? PDK_TRACE
            : *level == 'd' ? PDK_DEBUG
            : *level == 'i' ? PDK_INFO
            : *level == 'w' ? PDK_WARN
                            : PDK_ERROR,
            message);
    return 0;
}

/* The value of a header in the host's JSON; enough for the table. */
static char *find_header(char *json, const char *key) {
    for (; *json; json++) {
        size_t n = 0;
        while (key[n] && json[n] == key[n]) n++;
        if (key[n]) continue;
        for (json += n; *json == ':' || *json == ' '; json++) {}
        char *value = ++json;
        while (*json && *json != '"') json++;
        *json = 0;
        return value;
    }
    return NULL;
}

PDK_FUNCTION(http) {
    pdk_bytes all = input();
    pdk_header headers[8];
    pdk_request request = {.method = all.data, .headers = headers};
    char *line = next_line(all.data);
    request.url = line;
    for (line = next_line(line); *line && *line != '\n' && request.header_count < 8;) {
        char *value = line, *next = next_line(line);
        while (*value && *value != ':') value++;
        if (*value) *value++ = 0;
        while (*value == ' ') value++;
        headers[request.header_count++] = (pdk_header){line, value};
        line = next;
    }
    request.body = line + (*line == '\n');
    request.body_size = all.size - (size_t)((const char *)request.body - all.data);

    pdk_response response = pdk_http(&request);
    char *answer = find_header(pdk_take_block(response.headers).data, "\"x-answer\"");
    pdk_bytes body = pdk_take_block(response.body);
    char *output = pdk_take(body.size + (answer ? pdk_length(answer) : 1) + 32);
    char *end = pdk_put(pdk_put_i64(output, response.status), "\n");
    end = pdk_put(pdk_put(end, answer ? answer : "-"), "\n");
    __builtin_memcpy(end, body.data, body.size);
    return pdk_output(output, (size_t)(end - output) + body.size);
}

PDK_FUNCTION(call_i32) {
    return output_number(host_i32((int32_t)parse(input().data)));
}

PDK_FUNCTION(call_i64) {
    return output_number(host_i64(parse(input().data)));
}

/* Decimal numbers of few digits, as the table has them. */
static double parse_decimal(const char *text) {
    double sign = *text == '-' ? (text++, -1) : 1, value = 0, scale = 1;
    for (; *text >= '0' && *text <= '9'; text++) value = value * 10 + (*text - '0');
    if (*text == '.')
        for (text++; *text >= '0' && *text <= '9'; text++) value = value * 10 + (*text - '0'), scale *= 10;
    return sign * value / scale;
}

static int32_t output_decimal(double value) {
    char text[64], *end = text;
    if (value < 0) *end++ = '-', value = -value;
    uint64_t whole = (uint64_t)value;
    double rest = value - (double)whole;
    end = pdk_put_u64(end, whole);
    if (rest > 0) *end++ = '.';
    for (int i = 0; rest > 0 && i < 20; i++) {
        rest *= 10;
        *end++ = (char)('0' + (int)rest);
        rest -= (int)rest;
    }
    return pdk_output(text, (size_t)(end - text));
}

PDK_FUNCTION(call_f32) {
    return output_decimal((double)host_f32((float)parse_decimal(input().data)));
}

PDK_FUNCTION(call_f64) {
    return output_decimal(host_f64(parse_decimal(input().data)));
}

PDK_FUNCTION(call_text) {
    pdk_bytes text = input();
    return pdk_output_block(host_text(pdk_block(text.data, text.size)));
}

PDK_FUNCTION(call_bytes) {
    pdk_bytes bytes = input();
    pdk_bytes answer = pdk_take_block(host_bytes(pdk_block(bytes.data, bytes.size)));
    return pdk_output(answer.data, answer.size);
}

PDK_FUNCTION(call_other) {
    host_other();
    return 0;
}

PDK_FUNCTION(churn) {
    int64_t n = parse(input().data);
    for (int64_t i = 0; i < n; i++) extism_free(extism_alloc(65536));
    return output_number(n);
}
