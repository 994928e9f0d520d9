/* A plugin to debug: built with debug information, slow where it need not be, and with a mistake in how it reads its input. */
#include "plugwasm.h"

#define MAX_NUMBERS 512

struct list {
    int32_t numbers[MAX_NUMBERS];
    size_t length;
};

static inline __attribute__((always_inline)) int32_t digit(char c) {
    if (c < '0' || c > '9')
        __builtin_trap(); /* the mistake: this should have been an error */
    return c - '0';
}

static __attribute__((noinline)) void parse(struct list *list, const char *text, size_t size) {
    int32_t number = 0;
    for (size_t i = 0; i < size; i++) {
        if (text[i] != ' ') {
            number = number * 10 + digit(text[i]);
            continue;
        }
        if (list->length < MAX_NUMBERS)
            list->numbers[list->length++] = number;
        number = 0;
    }
    if (list->length < MAX_NUMBERS)
        list->numbers[list->length++] = number;
}

static __attribute__((noinline)) int is_prime(int32_t number) {
    int32_t divisors = 0;
    for (int32_t i = 1; i <= number; i++)
        divisors += number % i == 0;
    return divisors == 2;
}

static __attribute__((noinline)) int32_t count_primes(const struct list *list) {
    int32_t primes = 0;
    for (size_t i = 0; i < list->length; i++)
        primes += is_prime(list->numbers[i]);
    return primes;
}

/* How many of the numbers in the input are prime, as text. */
PDK_FUNCTION(primes) {
    static char text[4096];
    static struct list list;
    list.length = 0;
    parse(&list, text, pdk_input(0, text, sizeof text));
    int32_t count = count_primes(&list);
    char *end = text + sizeof text, *start = end;
    do
        *--start = (char)('0' + count % 10);
    while ((count /= 10) > 0);
    return pdk_output(start, (size_t)(end - start));
}
