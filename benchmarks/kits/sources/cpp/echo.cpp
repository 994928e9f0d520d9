#include "plugwasm.hpp"

PLUGWASM_EXPORT(echo) { return plugwasm::input_bytes(); }
