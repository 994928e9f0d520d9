#include "plugwasm.hpp"

PLUGWASM_EXPORT(hello) { return "Hello, " + plugwasm::input_text() + "!"; }
