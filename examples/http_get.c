/* http_get: the network, closed unless the application names hosts in allowed_hosts. Each export takes a URL and gets it.
 *
 *     http_get    {"status": 200, "length": 5, "body": "hello"}    (the body must be text in UTF-8)
 *     http_body   the body, byte for byte
 *     headers     the headers of the response as JSON, {} when the application does not show them
 *
 * A status other than 200 is an error that names the URL and the status. */
#include "plugwasm.h"

/* Fetches the URL that is the input. False when it could not, and then the error is set. */
static int fetch(pdk_response *response) {
    static char url[8192 + 1], text[sizeof url + 64];
    pdk_reset();
    size_t n = pdk_input(0, url, sizeof url - 1);
    if (n < pdk_input_size()) return pdk_fail("the URL is longer than 8192 bytes"), 0;
    url[n] = 0;
    pdk_request request = {.url = url};
    *response = pdk_http(&request);
    if (response->status == 200) return 1;

    char *end = pdk_put(pdk_put(text, "GET "), url);
    end = pdk_put_i64(pdk_put(end, ": expected status 200, got "), response->status);
    *end = 0;
    if (response->body) extism_free(response->body);
    return pdk_fail(text), 0;
}

PDK_FUNCTION(http_get) {
    pdk_response response;
    if (!fetch(&response)) return 1;
    pdk_bytes body = pdk_take_block(response.body);
    char *json = body.data && body.size < UINT32_MAX / 8 ? pdk_take(6 * body.size + 100) : NULL;
    if (!json) return pdk_fail("the response does not fit into memory");
    char *end = pdk_put_u64(pdk_put(json, "{\"status\":200,\"length\":"), body.size);
    end = pdk_put_json(pdk_put(end, ",\"body\":"), body.data, body.size);
    *end++ = '}';
    return pdk_output(json, (size_t)(end - json));
}

PDK_FUNCTION(http_body) {
    pdk_response response;
    if (!fetch(&response)) return 1;
    return pdk_output_block(response.body);
}

PDK_FUNCTION(headers) {
    pdk_response response;
    if (!fetch(&response)) return 1;
    if (response.body) extism_free(response.body);
    return response.headers ? pdk_output_block(response.headers) : pdk_output_text("{}");
}
