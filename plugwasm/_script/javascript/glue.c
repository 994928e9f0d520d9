/* The JavaScript engine of plugwasm: QuickJS as a module that speaks the plugin contract.
 *
 * The module goes through three states, and is written back to a file between them (snapshots):
 *
 *   boot   makes the interpreter, and runs the kit in it, which comes as the input: `prepare` has
 *          compiled it, in another instance
 *   load   runs a script, and remembers its functions
 *   call   calls one of these functions
 *
 * Everything that has a state is in the linear memory: there is no mutable global but the stack
 * pointer, which has its first value between two calls.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "glue.h"

/* What may be used of the stack in the linear memory until a script is loaded, which has a limit. */
#define STACK_LIMIT (160 * 1024)
#define MAX_PARAMS 16
#define MAX_FUNCTIONS 1000

static JSRuntime *runtime;
JSContext *context;
static JSValue kit_load, kit_describe, kit_run_timer, kit_drop_timers;

int is_loading, is_out_of_memory;

/* Whether the running call has used the input and output functions of the kit. */
static int has_used_kit;

/* Whether timers were set since they were dropped. */
static int has_timers;

/* A function that the script exports. */
typedef enum input_mode { INPUT_NONE, INPUT_JSON, INPUT_TEXT, INPUT_BYTES } input_mode;

typedef struct script_export {
    JSValue function;
    input_mode mode;
    int output_is_json; /* also if it is text */
} script_export;

static script_export *script_exports;
static int32_t export_count;

/* A function of the host: an element of the function table, and its type. The characters of a type
 * are i (i32), l (i64), f (f32), d (f64). */
typedef struct host_function {
    void (*call)(uint64_t *slots);
    char params[MAX_PARAMS + 1];
    char result;
} host_function;

static host_function *host_functions;
static uint32_t host_function_count;

/* ---- values ----------------------------------------------------------------------------------- */

/* Where the first character is, from `i` on, that is not ASCII, or up to seven bytes before it. */
static size_t skip_ascii(const void *text, size_t i, size_t size) {
    for (uint64_t word; size - i >= sizeof word; i += sizeof word) {
        memcpy(&word, (const char *)text + i, sizeof word);
        if (word & 0x8080808080808080u) break;
    }
    return i;
}

/* Replaces lone surrogates, which JavaScript allows and UTF-8 does not, by U+FFFD. */
static void make_well_formed(char *text, size_t size) {
    for (size_t i = skip_ascii(text, 0, size); i + 2 < size; i++)
        if ((uint8_t)text[i] == 0xED && (uint8_t)text[i + 1] >= 0xA0) memcpy(text + i, "\xEF\xBF\xBD", 3);
}

static int is_utf8(const uint8_t *text, size_t size) {
    for (size_t i = skip_ascii(text, 0, size); i < size;) {
        uint8_t lead = text[i++];
        if (lead < 0x80) {
            i = skip_ascii(text, i, size);
            continue;
        }
        size_t more = lead < 0xC2 ? 0 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : lead < 0xF5 ? 3 : 0;
        if (!more || size - i < more) return 0;
        uint8_t least = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
        uint8_t most = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
        if (text[i] < least || text[i] > most) return 0;
        for (size_t k = 1; k < more; k++)
            if ((text[i + k] & 0xC0) != 0x80) return 0;
        i += more;
    }
    return 1;
}

int view_bytes(JSValueConst value, view *into) {
    *into = (view){0};
    if (JS_IsObject(value)) {
        if (JS_IsArrayBuffer(value)) {
            into->data = JS_GetArrayBuffer(context, &into->size, value);
            return into->data || !into->size ? 0 : -1;
        }
        size_t offset, size, item;
        JSValue buffer = JS_GetTypedArrayBuffer(context, value, &offset, &size, &item);
        if (JS_IsException(buffer)) {
            JS_FreeValue(context, JS_GetException(context));
            JS_ThrowTypeError(context, "expected text, an ArrayBuffer or a typed array");
            return -1;
        }
        size_t all;
        const uint8_t *data = JS_GetArrayBuffer(context, &all, buffer);
        JS_FreeValue(context, buffer); /* the array holds it */
        if (!data && size) return -1;
        into->data = data ? data + offset : NULL;
        into->size = size;
        return 0;
    }
    if (!JS_IsString(value)) {
        JS_ThrowTypeError(context, "expected text, an ArrayBuffer or a typed array");
        return -1;
    }
    into->text = JS_ToCStringLen(context, &into->size, value);
    if (!into->text) return -1;
    make_well_formed((char *)into->text, into->size);
    into->data = (const uint8_t *)into->text;
    return 0;
}

void free_view(view *bytes) {
    if (bytes->text) JS_FreeCString(context, bytes->text);
}

/* A block of the host's memory with these bytes. Returns 0, or -1 with an exception. */
static int make_block(JSValueConst value, pdk_handle *block, size_t *size) {
    view bytes;
    if (view_bytes(value, &bytes)) return -1;
    *block = pdk_block(bytes.data, bytes.size);
    *size = bytes.size;
    free_view(&bytes);
    if (*size && !*block) {
        JS_ThrowOutOfMemory(context);
        return -1;
    }
    return 0;
}

/* What QuickJS calls to change the size of a buffer; a size of 0 frees it. */
static void *resize_buffer(JSRuntime *of, void *opaque, void *data, size_t size) {
    (void)of, (void)opaque;
    if (size) return realloc(data, size);
    free(data);
    return NULL;
}

static JSValue take_buffer(uint8_t *data, size_t size) {
    JSValue buffer = JS_NewArrayBuffer(context, data, size, 0, resize_buffer, NULL, false);
    if (JS_IsException(buffer)) free(data);
    return buffer;
}

/* The content of a block as an ArrayBuffer. */
static JSValue read_block(pdk_handle block) {
    uint64_t size = pdk_size(block);
    uint8_t *data = size < UINT32_MAX ? malloc((size_t)size + 1) : NULL;
    if (!data) return JS_ThrowOutOfMemory(context);
    pdk_load(block, data, (size_t)size);
    return take_buffer(data, (size_t)size);
}

/* The content of a block as text; what is no UTF-8 becomes U+FFFD. */
static JSValue read_text(pdk_handle block) {
    uint64_t size = pdk_size(block);
    char *data = size < UINT32_MAX ? malloc((size_t)size + 1) : NULL;
    if (!data) return JS_ThrowOutOfMemory(context);
    pdk_load(block, data, (size_t)size);
    JSValue text = JS_NewStringLen(context, data, (size_t)size);
    free(data);
    return text;
}

/* The input with a null character after its last byte; NULL with an exception. */
static char *copy_input(size_t *size) {
    uint64_t all = pdk_input_size();
    char *data = all < UINT32_MAX ? malloc((size_t)all + 1) : NULL;
    if (!data) {
        JS_ThrowOutOfMemory(context);
        return NULL;
    }
    *size = pdk_input(0, data, (size_t)all);
    data[*size] = 0;
    return data;
}

/* ---- what the kit is made of ------------------------------------------------------------------ */

enum {
    INPUT_AS_TEXT, INPUT_AS_BUFFER, OUTPUT, CONFIG, VAR_TEXT, VAR_BUFFER, VAR_SET, HTTP, HTTP_STATUS,
    HTTP_HEADERS, TIMER, SLEEP, BLOCK_NEW, BLOCK_TEXT, BLOCK_BUFFER, BLOCK_SIZE, BLOCK_FREE,
    ASKS_HOST = BLOCK_FREE, /* those up to here */
    LOG, LOG_ENABLED, CLOCK, ENCODE, DECODE, RANDOM, RANDOM_BYTES, LIMIT_STACK, RUN, ADD_EXPORT,
    HOST_FUNCTIONS, PROMISE_STATE, URL_PARSE, URL_PART, URL_SET, QUERY_PARSE, QUERY_TEXT,
};

static int refuses_host(const char *what) {
    if (is_loading)
        JS_ThrowTypeError(context,
                          "%s cannot be used while the script is loaded, only in the functions that "
                          "it exports",
                          what);
    return is_loading;
}

static int to_handle(JSValueConst value, pdk_handle *handle) {
    int64_t number;
    if (JS_IsBigInt(value) ? JS_ToBigInt64(context, &number, value) : JS_ToInt64(context, &number, value))
        return -1;
    *handle = (pdk_handle)number;
    return 0;
}

static JSValue from_i64(int64_t number) {
    const int64_t most = 9007199254740991;
    return number >= -most && number <= most ? JS_NewInt64(context, number)
                                             : JS_NewBigInt64(context, number);
}

static JSValue run(JSValueConst source, JSValueConst name, JSValueConst is_probably_module);


static JSValue random_buffer(JSValueConst size_given) {
    uint32_t size;
    if (JS_ToUint32(context, &size, size_given)) return JS_EXCEPTION;
    uint8_t *data = malloc((size_t)size + 1);
    if (!data) return JS_ThrowOutOfMemory(context);
    random_bytes(data, size);
    return take_buffer(data, size);
}

static JSValue decode(JSValueConst bytes, JSValueConst fatal) {
    view view_;
    if (view_bytes(bytes, &view_)) return JS_EXCEPTION;
    JSValue text = JS_ToBool(context, fatal) && !is_utf8(view_.data, view_.size)
                       ? JS_ThrowTypeError(context, "the bytes are not UTF-8")
                       : JS_NewStringLen(context, (const char *)view_.data, view_.size);
    free_view(&view_);
    return text;
}

static JSValue encode(JSValueConst text) {
    view bytes;
    if (view_bytes(text, &bytes)) return JS_EXCEPTION;
    JSValue buffer = JS_NewArrayBufferCopy(context, bytes.data, bytes.size);
    free_view(&bytes);
    return buffer;
}

static JSValue log_line(JSValueConst level, JSValueConst text) {
    static void (*const sinks[])(pdk_handle) = {extism_log_trace, extism_log_debug, extism_log_info,
                                                extism_log_warn, extism_log_error};
    int32_t number;
    pdk_handle block;
    size_t size;
    if (JS_ToInt32(context, &number, level) || make_block(text, &block, &size)) return JS_EXCEPTION;
    sinks[number < 0 || number > 4 ? 2 : number](block);
    return JS_UNDEFINED;
}

static JSValue http(JSValueConst request, JSValueConst body) {
    pdk_handle document, content = 0;
    size_t size;
    if (make_block(request, &document, &size)) return JS_EXCEPTION;
    if (!JS_IsUndefined(body) && make_block(body, &content, &size)) return JS_EXCEPTION;
    pdk_handle answer = ask_http(document, content);
    JSValue buffer = read_block(answer);
    if (answer) extism_free(answer);
    return buffer;
}

static JSValue value_of(pdk_handle block, int as_text) {
    if (!block) return JS_NULL;
    JSValue value = as_text ? read_text(block) : read_block(block);
    extism_free(block);
    return value;
}

static JSValue add_export(JSValueConst function, JSValueConst mode, JSValueConst output_is_json) {
    if (!JS_IsFunction(context, function) || export_count >= MAX_FUNCTIONS)
        return JS_ThrowRangeError(context, "a script can export up to %d functions", MAX_FUNCTIONS);
    int32_t number;
    if (JS_ToInt32(context, &number, mode)) return JS_EXCEPTION;
    script_export *more = realloc(script_exports, ((size_t)export_count + 1) * sizeof *more);
    if (!more) return JS_ThrowOutOfMemory(context);
    script_exports = more;
    script_exports[export_count++] = (script_export){
        JS_DupValue(context, function), (input_mode)number, JS_VALUE_GET_BOOL(output_is_json)};
    return JS_UNDEFINED;
}

static JSValue call_host(JSContext *ctx, JSValueConst this, int argc, JSValueConst *argv, int index) {
    (void)this, (void)ctx;
    if (refuses_host("a host function")) return JS_EXCEPTION;
    const host_function *function = &host_functions[index];
    uint64_t slots[MAX_PARAMS] = {0};
    for (int i = 0; function->params[i]; i++) {
        JSValueConst value = i < argc ? argv[i] : JS_UNDEFINED;
        double number = 0;
        float single;
        pdk_handle whole;
        switch (function->params[i]) {
        case 'i':
        case 'l':
            if (to_handle(value, &whole)) return JS_EXCEPTION;
            slots[i] = whole;
            break;
        case 'f':
            if (JS_ToFloat64(context, &number, value)) return JS_EXCEPTION;
            single = (float)number;
            memcpy(&slots[i], &single, sizeof single);
            break;
        default:
            if (JS_ToFloat64(context, &number, value)) return JS_EXCEPTION;
            memcpy(&slots[i], &number, sizeof number);
        }
    }
    function->call(slots);
    float single;
    double number;
    switch (function->result) {
    case 'i': return JS_NewInt32(context, (int32_t)slots[0]);
    case 'l': return from_i64((int64_t)slots[0]);
    case 'f': memcpy(&single, slots, sizeof single); return JS_NewFloat64(context, (double)single);
    case 'd': memcpy(&number, slots, sizeof number); return JS_NewFloat64(context, number);
    default: return JS_UNDEFINED;
    }
}

/* Makes functions for the host's, which are in the function table one after the other: each text is
 * the type, as characters for the parameters, a colon, and one for the result if there is one. */
static JSValue make_host_functions(JSValueConst first_element, JSValueConst types) {
    uint32_t first, count;
    JSValue length = JS_GetPropertyStr(context, types, "length");
    if (JS_ToUint32(context, &first, first_element) || JS_ToUint32(context, &count, length)) return JS_EXCEPTION;
    if (count > MAX_FUNCTIONS) return JS_ThrowRangeError(context, "too many host functions");
    if (host_functions) return JS_ThrowTypeError(context, "the host functions are made already");
    JSValue made = JS_NewArray(context);
    host_functions = calloc((size_t)count + 1, sizeof *host_functions);
    if (!host_functions || JS_IsException(made)) return JS_ThrowOutOfMemory(context);
    for (uint32_t i = 0; i < count; i++) {
        JSValue item = JS_GetPropertyUint32(context, types, i);
        const char *type = JS_ToCString(context, item);
        if (!type) return JS_EXCEPTION;
        host_function *function = &host_functions[i];
        size_t n = 0;
        for (; type[n] && type[n] != ':' && n < MAX_PARAMS; n++) function->params[n] = type[n];
        if (type[n] != ':') return JS_ThrowRangeError(context, "a host function has too many parameters");
        function->result = type[n + 1];
        function->call = (void (*)(uint64_t *))(uintptr_t)(first + i);
        JS_FreeCString(context, type);
        JS_FreeValue(context, item);
        JSValue callable = JS_NewCFunctionMagic(context, call_host, "host function", (int)n, JS_CFUNC_generic_magic, (int)i);
        if (JS_SetPropertyUint32(context, made, i, callable) < 0) return JS_EXCEPTION;
    }
    host_function_count = count;
    return made;
}

static JSValue native(JSContext *ctx, JSValueConst this, int argc, JSValueConst *argv, int what) {
    (void)this, (void)argc, (void)ctx;
    if (what <= ASKS_HOST && refuses_host(what == TIMER ? "a timer" : "the host")) return JS_EXCEPTION;
    pdk_handle block = 0, value = 0;
    size_t size = 0;
    switch (what) {
    case INPUT_AS_TEXT:
    case INPUT_AS_BUFFER: {
        has_used_kit = 1;
        char *data = copy_input(&size);
        if (!data) return JS_EXCEPTION;
        if (what == INPUT_AS_BUFFER) return take_buffer((uint8_t *)data, size);
        JSValue text = JS_NewStringLen(context, data, size);
        free(data);
        return text;
    }
    case OUTPUT:
        has_used_kit = 1;
        if (make_block(argv[0], &block, &size)) return JS_EXCEPTION;
        extism_output_set(block, size);
        return JS_UNDEFINED;
    case CONFIG:
        if (make_block(argv[0], &block, &size)) return JS_EXCEPTION;
        return value_of(extism_config_get(block), 1);
    case VAR_TEXT:
    case VAR_BUFFER:
        if (make_block(argv[0], &block, &size)) return JS_EXCEPTION;
        return value_of(extism_var_get(block), what == VAR_TEXT);
    case VAR_SET:
        if (make_block(argv[0], &block, &size)) return JS_EXCEPTION;
        if (!JS_IsNull(argv[1]) && make_block(argv[1], &value, &size)) return JS_EXCEPTION;
        extism_var_set(block, value);
        return JS_UNDEFINED;
    case HTTP: return http(argv[0], argv[1]);
    case HTTP_STATUS: return JS_NewInt32(context, extism_http_status_code());
    case HTTP_HEADERS: return value_of(extism_http_headers(), 1);
    case BLOCK_NEW:
        if (make_block(argv[0], &block, &size)) return JS_EXCEPTION;
        return from_i64((int64_t)block);
    case BLOCK_TEXT:
        if (to_handle(argv[0], &block)) return JS_EXCEPTION;
        return read_text(block);
    case BLOCK_BUFFER:
        if (to_handle(argv[0], &block)) return JS_EXCEPTION;
        return read_block(block);
    case BLOCK_SIZE:
        if (to_handle(argv[0], &block)) return JS_EXCEPTION;
        return from_i64((int64_t)pdk_size(block));
    case BLOCK_FREE:
        if (to_handle(argv[0], &block)) return JS_EXCEPTION;
        if (block) extism_free(block);
        return JS_UNDEFINED;
    case LOG: return log_line(argv[0], argv[1]);
    case LOG_ENABLED: {
        int32_t level;
        if (JS_ToInt32(context, &level, argv[0])) return JS_EXCEPTION;
        return JS_NewBool(context, pdk_log_enabled((pdk_level)level));
    }
    case ENCODE: return encode(argv[0]);
    case DECODE: return decode(argv[0], argv[1]);
    case RANDOM: return JS_NewFloat64(context, random_number());
    case RANDOM_BYTES: return random_buffer(argv[0]);
    case LIMIT_STACK: {
        uint32_t limit;
        if (JS_ToUint32(context, &limit, argv[0])) return JS_EXCEPTION;
        JS_SetMaxStackSize(runtime, limit);
        return JS_UNDEFINED;
    }
    case TIMER: has_timers = 1; return JS_UNDEFINED;
    case SLEEP: {
        double milliseconds;
        if (JS_ToFloat64(context, &milliseconds, argv[0])) return JS_EXCEPTION;
        sleep_for(milliseconds);
        return JS_UNDEFINED;
    }
    case CLOCK: return JS_NewFloat64(context, read_clock());
    case PROMISE_STATE: return JS_NewInt32(context, JS_PromiseState(context, argv[0]));
    case URL_PARSE: return parse_url(argv[0], argv[1]);
    case URL_PART: return url_part(argv[0], argv[1], JS_UNDEFINED);
    case URL_SET: return url_part(argv[0], argv[1], argv[2]);
    case QUERY_PARSE: return parse_query(argv[0]);
    case QUERY_TEXT: return query_text(argv[0]);
    case RUN: return run(argv[0], argv[1], argv[2]);
    case ADD_EXPORT: return add_export(argv[0], argv[1], argv[2]);
    default: return make_host_functions(argv[0], argv[1]);
    }
}

static const struct {
    const char *name;
    int what, count;
} natives[] = {
    {"inputText", INPUT_AS_TEXT, 0}, {"inputBuffer", INPUT_AS_BUFFER, 0}, {"output", OUTPUT, 1},
    {"config", CONFIG, 1}, {"varText", VAR_TEXT, 1}, {"varBuffer", VAR_BUFFER, 1},
    {"varSet", VAR_SET, 2}, {"http", HTTP, 2}, {"httpStatus", HTTP_STATUS, 0},
    {"httpHeaders", HTTP_HEADERS, 0}, {"blockNew", BLOCK_NEW, 1}, {"blockText", BLOCK_TEXT, 1},
    {"blockBuffer", BLOCK_BUFFER, 1}, {"blockSize", BLOCK_SIZE, 1}, {"blockFree", BLOCK_FREE, 1},
    {"log", LOG, 2}, {"logEnabled", LOG_ENABLED, 1}, {"encode", ENCODE, 1}, {"decode", DECODE, 2},
    {"random", RANDOM, 0}, {"randomBuffer", RANDOM_BYTES, 1}, {"limitStack", LIMIT_STACK, 1},
    {"noteTimer", TIMER, 0}, {"sleep", SLEEP, 1}, {"clock", CLOCK, 0}, {"promiseState", PROMISE_STATE, 1},
    {"urlParse", URL_PARSE, 2}, {"urlPart", URL_PART, 2}, {"urlSet", URL_SET, 3},
    {"queryParse", QUERY_PARSE, 1}, {"queryText", QUERY_TEXT, 1},
    {"run", RUN, 3}, {"addExport", ADD_EXPORT, 3}, {"hostFunctions", HOST_FUNCTIONS, 2},
};

/* ---- running code ----------------------------------------------------------------------------- */

static void run_jobs(void) {
    JSContext *of;
    for (int ran; (ran = JS_ExecutePendingJob(runtime, &of));)
        if (ran < 0) JS_FreeValue(context, JS_GetException(context));
}

/* Runs what promises wait for. If the value is a promise, runs timers until it is settled, and
 * returns what it became. What was thrown is set aside meanwhile: a job that throws would take it. */
static JSValue settle(JSValue value) {
    if (JS_IsException(value)) {
        JSValue thrown = JS_GetException(context);
        run_jobs();
        return JS_Throw(context, thrown);
    }
    run_jobs();
    while (has_timers && JS_IsPromise(value) && JS_PromiseState(context, value) == JS_PROMISE_PENDING) {
        JSValue was_there = JS_Call(context, kit_run_timer, JS_UNDEFINED, 0, NULL);
        if (JS_IsException(was_there)) {
            JS_FreeValue(context, value);
            return was_there;
        }
        if (!JS_ToBool(context, was_there)) break;
        run_jobs();
    }
    if (!JS_IsPromise(value)) return value;
    JSPromiseStateEnum state = JS_PromiseState(context, value);
    JSValue result = state == JS_PROMISE_PENDING ? JS_UNDEFINED : JS_PromiseResult(context, value);
    JS_FreeValue(context, value);
    if (state == JS_PROMISE_FULFILLED) return result;
    if (state == JS_PROMISE_PENDING)
        return JS_ThrowTypeError(context, "a promise was returned that nothing will ever settle");
    return JS_Throw(context, result);
}

static JSValue compile(const char *text, size_t size, const char *file, int type) {
    return JS_Eval(context, text, size, file, type | JS_EVAL_FLAG_COMPILE_ONLY | JS_EVAL_FLAG_BACKTRACE_BARRIER);
}

/* Runs a source. What is no valid script is a module: returns its exports, else undefined. */
static JSValue run(JSValueConst source, JSValueConst name, JSValueConst is_probably_module) {
    size_t size;
    const char *text = JS_ToCStringLen(context, &size, source), *file = JS_ToCString(context, name);
    if (!text || !file) return JS_EXCEPTION;
    JSModuleDef *module = NULL;
    JSValue compiled = compile(text, size, file, JS_EVAL_TYPE_GLOBAL);
    if (JS_IsException(compiled)) {
        JSValue of_script = JS_GetException(context);
        compiled = compile(text, size, file, JS_EVAL_TYPE_MODULE);
        if (!JS_IsException(compiled)) {
            module = JS_VALUE_GET_PTR(compiled);
            JS_FreeValue(context, of_script);
        } else if (JS_ToBool(context, is_probably_module)) {
            JS_FreeValue(context, of_script);
        } else {
            JS_FreeValue(context, JS_GetException(context));
            JS_Throw(context, of_script);
        }
    }
    JS_FreeCString(context, text);
    JS_FreeCString(context, file);
    if (JS_IsException(compiled)) return compiled;
    JSValue done = settle(JS_EvalFunction(context, compiled));
    if (JS_IsException(done)) return done;
    JS_FreeValue(context, done);
    return module ? JS_GetModuleNamespace(context, module) : JS_UNDEFINED;
}

static JSModuleDef *refuse_import(JSContext *ctx, const char *name, void *opaque) {
    (void)opaque;
    JS_ThrowReferenceError(ctx, "cannot import '%s': a script is one file; bundle it with what it imports", name);
    return NULL;
}

/* Sets the pending exception as the error of the call. */
static int32_t fail(void) {
    JSValue exception = JS_GetException(context), code = JS_UNDEFINED;
    int32_t number = 1;
    if (JS_IsObject(exception)) code = JS_GetPropertyStr(context, exception, "code");
    if (JS_IsException(code)) JS_FreeValue(context, JS_GetException(context));
    if (JS_VALUE_GET_TAG(code) == JS_TAG_INT && JS_VALUE_GET_INT(code)) number = JS_VALUE_GET_INT(code);
    JS_FreeValue(context, code);
    /* Where QuickJS itself runs out of memory, it may leave no exception. */
    int is_missing = JS_IsNull(exception) || JS_IsUninitialized(exception);
    if (is_missing && is_out_of_memory) return pdk_fail("InternalError: out of memory");
    JSValue text = JS_Call(context, kit_describe, JS_UNDEFINED, 1, &exception);
    JS_FreeValue(context, exception);
    pdk_handle block;
    size_t size;
    if (JS_IsException(text) || make_block(text, &block, &size)) {
        JS_FreeValue(context, JS_GetException(context));
        return pdk_fail_with(number, "the script threw something that has no text");
    }
    JS_FreeValue(context, text);
    if (!block) return pdk_fail_with(number, "the script threw an empty text");
    extism_error_set(block);
    return number;
}

static int32_t fail_with(const char *message) {
    JS_ThrowTypeError(context, "%s", message);
    return fail();
}

#include "slots.h"

/* ---- exports ---------------------------------------------------------------------------------- */

static int32_t start(void) {
    is_loading = 1;
    seed_random();
    runtime = JS_NewRuntime2(&allocator, NULL);
    context = runtime ? JS_NewContext(runtime) : NULL;
    if (!context) return pdk_fail("no memory for the interpreter");
    JS_SetMaxStackSize(runtime, STACK_LIMIT);
    return 0;
}

/* Compiles the kit, without its text and its lines: the input to the output. What that leaves in
 * memory is in no snapshot, because `boot` runs in another instance. */
PDK_EXPORT("prepare") int32_t prepare(void) {
    int32_t failed = start();
    if (failed) return failed;
    size_t size;
    char *source = copy_input(&size);
    if (!source) return fail();
    JSValue compiled = JS_Eval(context, source, size, "plugwasm", JS_EVAL_TYPE_GLOBAL | JS_EVAL_FLAG_COMPILE_ONLY);
    if (JS_IsException(compiled)) return pdk_fail("the kit does not compile");
    uint8_t *code = JS_WriteObject(context, &size, compiled, JS_WRITE_OBJ_BYTECODE | JS_WRITE_OBJ_STRIP_DEBUG);
    if (!code) return pdk_fail("the kit cannot be written");
    pdk_handle block = pdk_block(code, size);
    extism_output_set(block, size);
    return 0;
}

PDK_EXPORT("boot") int32_t boot(void) {
    int32_t failed = start();
    if (failed) return failed;
    JS_SetModuleLoaderFunc(runtime, NULL, refuse_import, NULL);
    JSValue primitives = JS_NewObject(context);
    for (size_t i = 0; i < sizeof natives / sizeof *natives; i++) {
        JSValue function = JS_NewCFunctionMagic(context, native, natives[i].name, natives[i].count, JS_CFUNC_generic_magic, natives[i].what);
        if (JS_SetPropertyStr(context, primitives, natives[i].name, function) < 0) return fail();
    }
    size_t size;
    char *source = copy_input(&size);
    if (!source) return fail();
    JSValue compiled = JS_ReadObject(context, (uint8_t *)source, size, JS_READ_OBJ_BYTECODE);
    memset(source, 0, size);
    free(source);
    JSValue kit = JS_IsException(compiled) ? compiled : JS_EvalFunction(context, compiled);
    if (JS_IsException(kit)) return pdk_fail("the kit cannot be read");
    JSValue parts = JS_Call(context, kit, JS_UNDEFINED, 1, &primitives);
    if (JS_IsException(parts)) return pdk_fail("the kit failed");
    kit_load = JS_GetPropertyStr(context, parts, "load");
    kit_describe = JS_GetPropertyStr(context, parts, "describe");
    kit_run_timer = JS_GetPropertyStr(context, parts, "runTimer");
    kit_drop_timers = JS_GetPropertyStr(context, parts, "dropTimers");
    JS_FreeValue(context, parts);
    JS_FreeValue(context, primitives);
    JS_FreeValue(context, kit);
    JS_RunGC(runtime);
    is_loading = 0;
    return 0;
}

/* The input is a JSON document; so is the output, which `load` of the kit makes. */
PDK_EXPORT("load") int32_t load(void) {
    JS_UpdateStackTop(runtime);
    size_t size;
    char *input = copy_input(&size);
    if (!input) return fail();
    is_loading = 1;
    JSValue document = JS_NewStringLen(context, input, size);
    free(input);
    JSValue answer = JS_Call(context, kit_load, JS_UNDEFINED, 1, &document);
    JS_FreeValue(context, document);
    if (JS_IsException(answer)) return fail();
    pdk_handle block;
    if (make_block(answer, &block, &size)) return fail();
    JS_FreeValue(context, answer);
    is_loading = 0;
    extism_output_set(block, size);
    return 0;
}

static JSValue parse_json(const char *text, size_t size) {
    JSValue value = JS_ParseJSON(context, text, size, "<input>");
    if (!JS_IsException(value) || is_out_of_memory) return value;
    JSValue error = JS_GetException(context), message = JS_GetPropertyStr(context, error, "message");
    const char *reason = JS_ToCString(context, message);
    value = JS_ThrowSyntaxError(context,
                                "the input is not JSON: %s (a function that takes text as it is says "
                                "so: `name.input = \"text\"`)",
                                reason ? reason : "");
    if (reason) JS_FreeCString(context, reason);
    JS_FreeValue(context, message);
    JS_FreeValue(context, error);
    return value;
}

static JSValue read_argument(input_mode mode) {
    size_t size;
    char *input = copy_input(&size);
    if (!input) return JS_EXCEPTION;
    if (mode == INPUT_BYTES) {
        JSValue bytes = JS_NewUint8Array(context, (uint8_t *)input, size, resize_buffer, NULL, false);
        if (JS_IsException(bytes)) free(input);
        return bytes;
    }
    JSValue value;
    if (!is_utf8((const uint8_t *)input, size))
        value = JS_ThrowTypeError(context, "the input is not UTF-8");
    else
        value = mode == INPUT_TEXT ? JS_NewStringLen(context, input, size)
                                   : parse_json(input, size);
    free(input);
    return value;
}

/* Sets what a function returned as the output. */
static int32_t set_output(JSValue result, int is_json) {
    if (has_used_kit) {
        int32_t code = JS_VALUE_GET_TAG(result) == JS_TAG_INT ? JS_VALUE_GET_INT(result) : 0;
        JS_FreeValue(context, result);
        return code;
    }
    int is_bytes = JS_IsArrayBuffer(result) || JS_GetTypedArrayType(result) >= 0;
    if (is_json && is_bytes) {
        JS_FreeValue(context, result);
        return fail_with("the function returned bytes, which JSON does not have");
    }
    if (is_json && JS_IsUndefined(result)) result = JS_NULL;
    if (JS_IsUndefined(result)) return 0;
    if (is_json || !(is_bytes || JS_IsString(result))) {
        JSValue json = JS_JSONStringify(context, result, JS_UNDEFINED, JS_UNDEFINED);
        JS_FreeValue(context, result);
        if (JS_IsException(json)) return fail();
        if (JS_IsUndefined(json)) return fail_with("the function returned something that JSON does not have");
        result = json;
    }
    pdk_handle block;
    size_t size;
    if (make_block(result, &block, &size)) return fail();
    JS_FreeValue(context, result);
    extism_output_set(block, size);
    return 0;
}

PDK_EXPORT("call") int32_t call(int32_t index) {
    if (index < 0 || index >= export_count) return pdk_fail("the engine has no such function");
    JS_UpdateStackTop(runtime);
    /* QuickJS collects cycles when memory has grown by half, which may be more than there is: without
     * this, cycles that filled the memory once would fill it in each call from then on. */
    if (is_out_of_memory) JS_RunGC(runtime);
    has_used_kit = is_out_of_memory = 0;
    if (has_timers) { /* of the call before */
        has_timers = 0;
        if (JS_IsException(JS_Call(context, kit_drop_timers, JS_UNDEFINED, 0, NULL)))
            JS_FreeValue(context, JS_GetException(context));
    }
    const script_export *called = &script_exports[index];
    JSValue argument = JS_UNDEFINED;
    if (called->mode != INPUT_NONE) {
        argument = read_argument(called->mode);
        if (JS_IsException(argument)) return fail();
    }
    JSValue result = JS_Call(context, called->function, JS_UNDEFINED, called->mode != INPUT_NONE, &argument);
    JS_FreeValue(context, argument);
    result = settle(result);
    return JS_IsException(result) ? fail() : set_output(result, called->output_is_json);
}
