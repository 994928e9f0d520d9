/* Imports that a plugin of one module gets for its host functions, in each engine.
 *
 * They are in the module from the start, because one more import would change the number of each
 * function. Nothing calls them here; `slots` only makes the linker keep them, and is taken out with
 * its calls. Include this once, after plugwasm.h. */
#define SLOT(n) PDK_IMPORT("plugwasm:slot", #n) void slot_##n(void);
#define CASE(n) case n: slot_##n(); break;
#define ALL(x)                                                                                     \
    x(0) x(1) x(2) x(3) x(4) x(5) x(6) x(7) x(8) x(9) x(10) x(11) x(12) x(13) x(14) x(15) x(16)    \
    x(17) x(18) x(19) x(20) x(21) x(22) x(23) x(24) x(25) x(26) x(27) x(28) x(29) x(30) x(31)
ALL(SLOT)

PDK_EXPORT("slots") void slots(int32_t number) {
    switch (number) { ALL(CASE) }
}
