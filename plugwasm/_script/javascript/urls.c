/* URLs and queries, by ada. A URL is its text, which is parsed again for each part of it. */
#include <stdbool.h>

#include "ada_c.h"
#include "glue.h"

static JSValue text_of(ada_string text) { return JS_NewStringLen(context, text.data, text.length); }

static JSValue take_owned(ada_owned_string text) {
    JSValue value = JS_NewStringLen(context, text.data, text.length);
    ada_free_owned_string(text);
    return value;
}

JSValue parse_url(JSValueConst text, JSValueConst base) {
    view given, from = {0};
    if (view_bytes(text, &given)) return JS_EXCEPTION;
    if (!JS_IsUndefined(base) && view_bytes(base, &from)) {
        free_view(&given);
        return JS_EXCEPTION;
    }
    ada_url url = JS_IsUndefined(base)
                      ? ada_parse((const char *)given.data, given.size)
                      : ada_parse_with_base((const char *)given.data, given.size, (const char *)from.data, from.size);
    JSValue href = ada_is_valid(url) ? text_of(ada_get_href(url)) : JS_NULL;
    ada_free(url);
    free_view(&given);
    free_view(&from);
    return href;
}

/* The order is that of `PARTS` in url.js. */
static ada_string (*const url_getters[])(ada_url) = {
    ada_get_protocol, ada_get_username, ada_get_password, ada_get_host,   ada_get_hostname,
    ada_get_port,     ada_get_pathname, ada_get_search,   ada_get_hash,
};

static bool set_search(ada_url url, const char *text, size_t size) { return ada_set_search(url, text, size), true; }
static bool set_hash(ada_url url, const char *text, size_t size) { return ada_set_hash(url, text, size), true; }

static bool (*const url_setters[])(ada_url, const char *, size_t) = {
    ada_set_protocol, ada_set_username, ada_set_password, ada_set_host, ada_set_hostname,
    ada_set_port,     ada_set_pathname, set_search,       set_hash,
};

JSValue url_part(JSValueConst href, JSValueConst part, JSValueConst value) {
    uint32_t index;
    view text, given = {0};
    if (JS_ToUint32(context, &index, part) || view_bytes(href, &text)) return JS_EXCEPTION;
    if (!JS_IsUndefined(value) && view_bytes(value, &given)) {
        free_view(&text);
        return JS_EXCEPTION;
    }
    ada_url url = ada_parse((const char *)text.data, text.size);
    const size_t count = sizeof url_getters / sizeof *url_getters;
    JSValue result;
    if (!JS_IsUndefined(value)) {
        if (index < count) url_setters[index](url, (const char *)given.data, given.size);
        result = text_of(ada_get_href(url));
    } else {
        result = index < count ? text_of(url_getters[index](url)) : take_owned(ada_get_origin(url));
    }
    ada_free(url);
    free_view(&text);
    free_view(&given);
    return result;
}

JSValue parse_query(JSValueConst text) {
    view given;
    if (view_bytes(text, &given)) return JS_EXCEPTION;
    ada_url_search_params query = ada_parse_search_params((const char *)given.data, given.size);
    ada_url_search_params_entries_iter entries = ada_search_params_get_entries(query);
    JSValue list = JS_NewArray(context);
    int failed = JS_IsException(list);
    for (uint32_t i = 0; !failed && ada_search_params_entries_iter_has_next(entries); i += 2) {
        ada_string_pair pair = ada_search_params_entries_iter_next(entries);
        failed = JS_SetPropertyUint32(context, list, i, text_of(pair.key)) < 0 ||
                 JS_SetPropertyUint32(context, list, i + 1, text_of(pair.value)) < 0;
    }
    ada_free_search_params_entries_iter(entries);
    ada_free_search_params(query);
    free_view(&given);
    if (!failed) return list;
    JS_FreeValue(context, list);
    return JS_EXCEPTION;
}

JSValue query_text(JSValueConst list) {
    int64_t count;
    if (JS_GetLength(context, list, &count)) return JS_EXCEPTION;
    ada_url_search_params query = ada_parse_search_params("", 0);
    int failed = 0;
    for (uint32_t i = 0; !failed && i + 1 < count; i += 2) {
        JSValue name = JS_GetPropertyUint32(context, list, i), value = JS_GetPropertyUint32(context, list, i + 1);
        view a = {0}, b = {0};
        failed = view_bytes(name, &a) || view_bytes(value, &b);
        if (!failed) ada_search_params_append(query, (const char *)a.data, a.size, (const char *)b.data, b.size);
        free_view(&a);
        free_view(&b);
        JS_FreeValue(context, name);
        JS_FreeValue(context, value);
    }
    JSValue text = failed ? JS_EXCEPTION : take_owned(ada_search_params_to_string(query));
    ada_free_search_params(query);
    return text;
}
