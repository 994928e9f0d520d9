/* An interpreter of JavaScript as a plugin, to measure what a large plugin costs: QuickJS, with one
 * script that reverses its input. */
#include <stdlib.h>
#include <string.h>

#include "plugwasm.h"
#include "quickjs.h"

static const char SCRIPT[] = "(text) => Array.from(text).reverse().join('')";

static JSContext *context;
static JSValue reverse;

static int32_t start(void) {
    if (context) return 0;
    JSRuntime *runtime = JS_NewRuntime();
    context = runtime ? JS_NewContext(runtime) : NULL;
    if (!context) return pdk_fail("no memory for the interpreter");
    reverse = JS_Eval(context, SCRIPT, sizeof SCRIPT - 1, "script.js", JS_EVAL_TYPE_GLOBAL);
    return JS_IsException(reverse) ? pdk_fail("the script has an error") : 0;
}

PDK_EXPORT("reverse") int32_t reverse_input(void) {
    if (start()) return 1;
    size_t size = extism_input_length();
    char *text = malloc(size + 1);
    if (!text) return pdk_fail("no memory for the input");
    pdk_input(0, text, size);
    JSValue input = JS_NewStringLen(context, text, size);
    free(text);
    JSValue output = JS_Call(context, reverse, JS_UNDEFINED, 1, &input);
    JS_FreeValue(context, input);
    const char *answer = JS_IsException(output) ? NULL : JS_ToCStringLen(context, &size, output);
    JS_FreeValue(context, output);
    if (!answer) return pdk_fail("the script failed");
    int32_t code = pdk_output(answer, size);
    JS_FreeCString(context, answer);
    return code;
}
