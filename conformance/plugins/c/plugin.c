/* The test plugin of the conformance suite in C, without a C library. */
#include "pdk/extism.h"

PDK_HOST("get_log_level") int32_t host_get_log_level(void);
PDK_HOST("log_trace") void host_log_trace(handle text);
#define USER(name) PDK_IMPORT("extism:host/user", name) extern
USER("host_i32") int32_t host_i32(int32_t);
USER("host_i64") int64_t host_i64(int64_t);
USER("host_f32") float host_f32(float);
USER("host_f64") double host_f64(double);
USER("host_text") handle host_text(handle);
USER("host_bytes") handle host_bytes(handle);
PDK_IMPORT("conformance:host", "host_other") extern void host_other(void);

/* The whole input, with a null character after it. */
static char *input(size_t *size) {
    pdk_arena_reset();
    char *bytes = pdk_input_all(size), *end = pdk_take(1);
    if (!bytes || !end) __builtin_trap();
    bytes[*size] = 0;
    return bytes;
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
    char text[24], *end = text;
    if (value < 0) *end++ = '-';
    end = pdk_put_u64(end, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
    return pdk_output(text, (size_t)(end - text));
}

PDK_EXPORT("echo") int32_t echo(void) {
    size_t size;
    char *bytes = input(&size);
    return pdk_output(bytes, size);
}

PDK_EXPORT("utf8") int32_t utf8(void) {
    size_t size, i = 0;
    uint8_t *text = (uint8_t *)input(&size);
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

PDK_EXPORT("count_vowels") int32_t count_vowels(void) {
    static char vowels[256], json[2000];
    uint64_t n = pdk_config("vowels", vowels, sizeof vowels - 1), total = 0, count = 0;
    if (n >= sizeof vowels) return pdk_fail("too many vowels");
    if (!n) n = (uint64_t)(pdk_put(vowels, "aeiouAEIOU") - vowels);
    size_t size;
    char *text = input(&size);
    for (size_t i = 0; i < size; i++)
        for (size_t k = 0; k < n; k++) count += text[i] == vowels[k];
    pdk_var("total", &total, sizeof total);
    total += count;
    pdk_var_set("total", &total, sizeof total);
    char *end = pdk_put_u64(pdk_put(json, "{\"count\": "), count);
    end = pdk_put_u64(pdk_put(end, ", \"total\": "), total);
    end = pdk_put(pdk_put_json(pdk_put(end, ", \"vowels\": \""), vowels, (size_t)n), "\"}");
    return pdk_output(json, (size_t)(end - json));
}

static int32_t output_value(handle block) {
    if (!block) return pdk_output("unset", 5);
    size_t size = (size_t)host_length(block);
    char *value = pdk_take(size + 1);
    value[0] = '=';
    pdk_take_in(block, value + 1, size);
    return pdk_output(value, size + 1);
}

PDK_EXPORT("config_get") int32_t config_get(void) {
    size_t size;
    return output_value(host_config_get(pdk_string(input(&size))));
}

PDK_EXPORT("var_get") int32_t var_get(void) {
    size_t size;
    return output_value(host_var_get(pdk_string(input(&size))));
}

PDK_EXPORT("var_set") int32_t var_set(void) {
    size_t size;
    char *name = input(&size), *value = next_line(name);
    pdk_var_set(name, value, size - (size_t)(value - name));
    return pdk_output("", 0);
}

PDK_EXPORT("var_delete") int32_t var_delete(void) {
    size_t size;
    host_var_set(pdk_string(input(&size)), 0);
    return pdk_output("", 0);
}

PDK_EXPORT("fail") int32_t fail(void) {
    size_t size;
    char *code = input(&size), *message = next_line(code);
    pdk_fail(message);
    return (int32_t)parse(code);
}

PDK_EXPORT("panic") int32_t panic(void) { __builtin_trap(); }

PDK_EXPORT("log") int32_t log_message(void) {
    size_t size;
    char *level = input(&size);
    handle text = pdk_string(next_line(level));
    switch (*level) {
    case 't': host_log_trace(text); break;
    case 'd': host_log_debug(text); break;
    case 'i': host_log_info(text); break;
    case 'w': host_log_warn(text); break;
    default: host_log_error(text);
    }
    return pdk_output("", 0);
}

/* Text of a JSON string, quoted. */
static char *put_string(char *to, const char *text) {
    return pdk_put(pdk_put_json(pdk_put(to, "\""), text, pdk_length(text)), "\"");
}

PDK_EXPORT("http") int32_t http(void) {
    size_t size;
    char *method = input(&size), *url = next_line(method), *line = next_line(url), *json = pdk_take(6 * size + 100);
    char *end = put_string(pdk_put(put_string(pdk_put(json, "{\"method\": "), method), ", \"url\": "), url);
    end = pdk_put(end, ", \"headers\": {");
    for (int first = 1; *line && *line != '\n'; first = 0) {
        char *next = next_line(line), *value = line;
        while (*value && *value != ':') value++;
        if (*value) *value++ = 0;
        while (*value == ' ') value++;
        end = put_string(pdk_put(put_string(pdk_put(end, first ? "" : ", "), line), ": "), value);
        line = next;
    }
    end = pdk_put(end, "}}");
    if (*line) line++;
    size_t sent = size - (size_t)(line - method);
    handle body = host_http_request(pdk_block(json, (size_t)(end - json)), sent ? pdk_block(line, sent) : 0);
    size_t length = body ? (size_t)host_length(body) : 0;
    handle headers = host_http_headers();
    size_t more = headers ? (size_t)host_length(headers) : 0;
    char *names = pdk_take(more + 1), *answer = pdk_take(length + more + 32), *at = answer;
    pdk_take_in(headers, names, more);
    names[more] = 0;
    at = pdk_put(pdk_put_u64(at, (uint64_t)host_http_status_code()), "\n");
    const char *key = "\"x-answer\"";
    char *found = 0;
    for (char *p = names; *p && !found; p++) {
        size_t k = 0;
        while (key[k] && p[k] == key[k]) k++;
        if (!key[k]) found = p + k;
    }
    while (found && (*found == ':' || *found == ' ')) found++;
    if (found)
        for (found++; *found && *found != '"';) *at++ = *found++;
    else *at++ = '-';
    *at++ = '\n';
    pdk_take_in(body, at, length);
    return pdk_output(answer, (size_t)(at - answer) + length);
}

PDK_EXPORT("call_i32") int32_t call_i32(void) {
    size_t size;
    return output_number(host_i32((int32_t)parse(input(&size))));
}

PDK_EXPORT("call_i64") int32_t call_i64(void) {
    size_t size;
    return output_number(host_i64(parse(input(&size))));
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

PDK_EXPORT("call_f32") int32_t call_f32(void) {
    size_t size;
    return output_decimal((double)host_f32((float)parse_decimal(input(&size))));
}

PDK_EXPORT("call_f64") int32_t call_f64(void) {
    size_t size;
    return output_decimal(host_f64(parse_decimal(input(&size))));
}

static int32_t output_block(handle block) {
    size_t size = (size_t)host_length(block);
    char *bytes = pdk_take(size);
    pdk_take_in(block, bytes, size);
    return pdk_output(bytes, size);
}

PDK_EXPORT("call_text") int32_t call_text(void) {
    size_t size;
    char *text = input(&size);
    return output_block(host_text(pdk_block(text, size)));
}

PDK_EXPORT("call_bytes") int32_t call_bytes(void) {
    size_t size;
    char *bytes = input(&size);
    return output_block(host_bytes(pdk_block(bytes, size)));
}

PDK_EXPORT("call_other") int32_t call_other(void) {
    host_other();
    return pdk_output("", 0);
}

PDK_EXPORT("churn") int32_t churn(void) {
    size_t size;
    int64_t n = parse(input(&size));
    for (int64_t i = 0; i < n; i++) host_free(host_alloc(65536));
    return output_number(n);
}
