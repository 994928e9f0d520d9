/* host_functions: calls into the application. It imports three functions that the application must give:
 *
 *     greet(str) -> str        a string goes in and comes out as a block of the host's memory
 *     add(int, int) -> int     i64
 *     scale(float) -> float    f64 */
#include "plugwasm.h"

PDK_HOST_FUNCTION("greet") pdk_handle user_greet(pdk_handle name);
PDK_HOST_FUNCTION("add") int64_t user_add(int64_t, int64_t);
PDK_HOST_FUNCTION("scale") double user_scale(double);

static char text[64];
static size_t at;

static int is_digit(void) { return text[at] >= '0' && text[at] <= '9'; }

static void read_numbers(void) {
    text[pdk_input(0, text, sizeof text - 1)] = 0;
    at = 0;
}

static int sign(void) {
    while (text[at] == ' ') at++;
    if (text[at] != '-') return 1;
    at++;
    return -1;
}

static uint64_t digits(void) {
    uint64_t value = 0;
    for (; is_digit(); at++) value = value * 10 + (uint64_t)(text[at] - '0');
    return value;
}

/* The whole input, as a block that greet can be given. */
static pdk_handle input_block(void) {
    pdk_reset();
    pdk_bytes bytes = pdk_input_all();
    return pdk_block(bytes.data, bytes.size);
}

PDK_FUNCTION(greet) {
    pdk_handle name = input_block(), greeting = user_greet(name);
    if (name) extism_free(name);
    return pdk_output_block(greeting);
}

/* Greets as often as the config entry "times" says (default 1) and gives the last greeting. */
PDK_FUNCTION(repeat_greet) {
    size_t n = (size_t)pdk_config("times", text, sizeof text - 1);
    if (n > 9) return pdk_fail("config \"times\" must be a number of at most 9 digits");
    text[n] = 0;
    at = 0;
    uint64_t times = n ? digits() : 1;
    if (text[at] || !times) return pdk_fail("config \"times\" must be a number of at most 9 digits, and not 0");
    pdk_handle name = input_block(), greeting = user_greet(name);
    for (; times > 1; times--) {
        if (greeting) extism_free(greeting);
        greeting = user_greet(name);
    }
    if (name) extism_free(name);
    return pdk_output_block(greeting);
}

/* Input: two integers, e.g. "40 2". Output: what add says. */
PDK_FUNCTION(sum) {
    read_numbers();
    int first_sign = sign();
    if (!is_digit()) return pdk_fail("the input must be two integers");
    uint64_t first = digits();
    int second_sign = sign();
    if (!is_digit()) return pdk_fail("the input must be two integers");
    uint64_t second = digits();
    int64_t result = user_add((int64_t)(first_sign < 0 ? 0 - first : first), (int64_t)(second_sign < 0 ? 0 - second : second));
    return pdk_output(text, (size_t)(pdk_put_i64(text, result) - text));
}

/* Input: a decimal such as "2.5". Output: what scale says, with up to six places. */
PDK_FUNCTION(scale) {
    read_numbers();
    int minus = sign();
    if (!is_digit()) return pdk_fail("the input must be a decimal number");
    double value = (double)digits();
    if (text[at] == '.') {
        size_t point = at++;
        double fraction = (double)digits();
        for (size_t i = point + 1; i < at; i++) fraction /= 10;
        value += fraction;
    }
    double result = user_scale(minus < 0 ? -value : value);
    double size = result < 0 ? -result : result;
    if (!(size < 1e12)) return pdk_fail("scale gave a number that is too large to print");
    uint64_t millionths = (uint64_t)(size * 1e6 + 0.5), rest = millionths % 1000000;
    char *end = result < 0 && millionths ? pdk_put(text, "-") : text;
    end = pdk_put_u64(end, millionths / 1000000);
    if (rest) *end++ = '.';
    for (uint64_t place = 100000; rest; rest %= place, place /= 10) *end++ = (char)('0' + rest / place);
    return pdk_output(text, (size_t)(end - text));
}
