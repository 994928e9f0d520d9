#include <algorithm>
#include <cstring>

#include "plugwasm.hpp"

using namespace plugwasm;

PLUGWASM_EXPORT(count_vowels) {
    const std::string vowels = config("vowels").value_or("aeiouAEIOU"), text = input_text();
    const auto count = std::count_if(text.begin(), text.end(), [&](char c) { return vowels.find(c) != std::string::npos; });
    std::uint64_t total = 0;
    if (const auto before = var::get("total")) std::memcpy(&total, before->data(), sizeof total);
    total += static_cast<std::uint64_t>(count);
    var::set("total", View(reinterpret_cast<const std::uint8_t *>(&total), sizeof total));
    return "{\"count\":" + std::to_string(count) + ",\"total\":" + std::to_string(total) + ",\"vowels\":\"" + vowels + "\"}";
}
