/* URLs: ada, with what it needs of the standard library of C++. The engine has no such library, which
 * would take most of the time of its build.
 */
#include "ada.cpp"

#include "plugwasm.h"

template class std::basic_string<char>;

std::string std::to_string(unsigned number) {
    char digits[10];
    size_t at = sizeof digits;
    do digits[--at] = static_cast<char>('0' + number % 10);
    while (number /= 10);
    return {digits + at, sizeof digits - at};
}

/* Without exceptions, there is no other way out of C++ than to end the call. */
static void *take_memory(size_t size) {
    void *memory = malloc(size ? size : 1);
    if (!memory) {
        pdk_fail("InternalError: out of memory");
        __builtin_trap();
    }
    return memory;
}

void *operator new(size_t size) { return take_memory(size); }
void *operator new[](size_t size) { return take_memory(size); }
void *operator new(size_t size, const std::nothrow_t &) noexcept { return malloc(size ? size : 1); }
void *operator new[](size_t size, const std::nothrow_t &) noexcept { return malloc(size ? size : 1); }
void operator delete(void *memory) noexcept { free(memory); }
void operator delete[](void *memory) noexcept { free(memory); }
void operator delete(void *memory, size_t) noexcept { free(memory); }
void operator delete[](void *memory, size_t) noexcept { free(memory); }
const std::nothrow_t std::nothrow{};

void std::__libcpp_verbose_abort(const char *, ...) noexcept { __builtin_trap(); }

extern "C" void __cxa_pure_virtual() { __builtin_trap(); }
