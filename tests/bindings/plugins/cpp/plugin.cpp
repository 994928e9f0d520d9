// The plugin of the round-trip tests in C++.

#include "bindings.hpp"

namespace plugin {

using namespace bindings;

Expected<Everything> echo_everything(Everything input) { return input; }

Expected<Shape> echo_shape(Shape input) {
    if (const auto *circle = std::get_if<Circle>(&input.value)) return Shape{Circle{circle->radius}};
    return input;
}

Expected<Tree> echo_tree(Tree input) { return input; }

Expected<Expression> echo_expression(Expression input) { return input; }

Expected<std::string> echo_text(std::string input) { return input; }

Expected<plugwasm::Bytes> echo_bytes(plugwasm::Bytes input) { return input; }

Expected<std::string> echo_json_text(std::string input) { return input; }

Expected<Bytes> echo_json_bytes(Bytes input) { return input; }

Expected<std::vector<Fruit>> echo_list(std::vector<Fruit> input) { return input; }

Expected<Scores> echo_map(Scores input) { return input; }

Expected<Fruit> fruit_to_json(Fruit input) { return input; }

Expected<Fruit> fruit_to_text(Fruit input) { return input; }

Expected<bool> negate(bool input) { return !input; }

Expected<std::int64_t> double_(std::int32_t input) { return std::int64_t{input} * 2; }

Expected<std::optional<double>> maybe(std::optional<double> input) { return input; }

Expected<void> nothing() { return host::ping(); }

Expected<Everything> call_host(Everything input) { return host::visit(input); }

Expected<std::string> call_host_text(std::string input) { return host::translate(input); }

Expected<bool> call_host_fruit(Fruit input) { return host::eat_fruit(input); }

Expected<plugwasm::Bytes> call_host_bytes(plugwasm::Bytes input) { return host::mix_bytes(input); }

Expected<std::int64_t> call_host_number(std::int64_t input) { return host::add_one(input); }

Expected<void> fail(std::string input) { return plugwasm::Error{"failed: " + input, 7}; }

} // namespace plugin
