/* http_get: the network, closed unless the application names hosts in allowed_hosts. Each export takes a URL and gets it.
 *
 *     http_get    {"status": 200, "length": 5, "body": "hello"}    (the body must be text in UTF-8)
 *     http_body   the body, byte for byte
 *     headers     the headers of the response as JSON, {} when the application does not show them
 *
 * A status other than 200 is an error that names the URL and the status. */
#include "pdk/extism.h"

/* Fetches the URL that is the input. False when it could not, and then the error is set. */
static int fetch(handle *body) {
    static char url[8192], text[6 * sizeof url + 64];
    size_t n = pdk_input(0, url, sizeof url);
    if (n < host_input_length()) return pdk_fail("the URL is longer than 8192 bytes"), 0;
    char *end = pdk_put_json(pdk_put(text, "{\"method\":\"GET\",\"url\":\""), url, n);
    end = pdk_put(end, "\"}");
    *body = pdk_http(text, (size_t)(end - text));
    int32_t status = host_http_status_code();
    if (status == 200) return 1;

    end = pdk_put(text, "GET ");
    for (size_t i = 0; i < n; i++) *end++ = url[i];
    end = pdk_put_u64(pdk_put(end, ": expected status 200, got "), (uint64_t)status);
    *end = 0;
    if (*body) host_free(*body);
    return pdk_fail(text), 0;
}

PDK_EXPORT("http_get") int32_t http_get(void) {
    handle body;
    if (!fetch(&body)) return 1;
    pdk_arena_reset();
    uint64_t n = body ? host_length(body) : 0;
    char *bytes = n > UINT32_MAX / 8 ? NULL : pdk_take((size_t)n);
    char *json = bytes ? pdk_take(6 * (size_t)n + 100) : NULL;
    if (!json) return pdk_fail("the response does not fit into memory");
    pdk_take_in(body, bytes, (size_t)n);
    char *end = pdk_put_u64(pdk_put(json, "{\"status\":200,\"length\":"), n);
    end = pdk_put_json(pdk_put(end, ",\"body\":\""), bytes, (size_t)n);
    end = pdk_put(end, "\"}");
    return pdk_output(json, (size_t)(end - json));
}

PDK_EXPORT("http_body") int32_t http_body(void) {
    handle body;
    if (!fetch(&body)) return 1;
    host_output_set(body, body ? host_length(body) : 0);
    return 0;
}

PDK_EXPORT("headers") int32_t headers(void) {
    handle body, json;
    if (!fetch(&body)) return 1;
    if (body) host_free(body);
    json = host_http_headers();
    if (!json) return pdk_output("{}", 2);
    host_output_set(json, host_length(json));
    return 0;
}
