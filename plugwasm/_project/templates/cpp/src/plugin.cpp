#include "plugwasm.hpp"

PLUGWASM_EXPORT(greet) {
    const std::string name = plugwasm::input_text();
    if (name.empty()) return plugwasm::Error{"no name was given", 2};

    return plugwasm::config("greeting").value_or("Hello") + ", " + name + "!";
}
