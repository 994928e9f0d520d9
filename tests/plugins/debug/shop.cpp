// python -m ziglang c++ -target wasm32-freestanding -O1 -g -nostdlib -fno-exceptions -Wl,--no-entry -fdebug-compilation-dir=. -o shop.wasm shop.cpp
typedef unsigned long size_t;
typedef unsigned long long uint64_t;
extern "C" __attribute__((import_module("extism:host/env"), import_name("input_length"))) uint64_t input_length();
namespace shop {
template <typename T> struct Basket {
    T items[4];
    inline __attribute__((always_inline)) T at(size_t i) const {
        if (i >= 4)
            __builtin_trap();
        return items[i];
    }
};
inline __attribute__((always_inline)) int price(const Basket<int> &basket, size_t i) {
    int sum = 1;
    sum += basket.at(i);
    return sum;
}
__attribute__((noinline)) int total(Basket<int> basket, size_t i) { return price(basket, i) * 2; }
}
extern "C" __attribute__((export_name("run"))) int run() {
    shop::Basket<int> basket{{1, 2, 3, 4}};
    return shop::total(basket, input_length()) > 1000;
}
