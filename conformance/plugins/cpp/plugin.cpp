// The test plugin of the conformance suite in C++.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "plugwasm.hpp"

using namespace plugwasm;

PLUGWASM_HOST_FUNCTION("extism:host/user", host_i32, std::int32_t(std::int32_t));
PLUGWASM_HOST_FUNCTION("extism:host/user", host_i64, std::int64_t(std::int64_t));
PLUGWASM_HOST_FUNCTION("extism:host/user", host_f32, float(float));
PLUGWASM_HOST_FUNCTION("extism:host/user", host_f64, double(double));
PLUGWASM_HOST_FUNCTION("extism:host/user", host_text, std::string(std::string_view));
PLUGWASM_HOST_FUNCTION("extism:host/user", host_bytes, Bytes(View));
PLUGWASM_HOST_FUNCTION("conformance:host", host_other, void());

namespace {

// The first line, and what follows it.
std::pair<std::string, std::string> split(const std::string &text) {
    const auto end = text.find('\n');
    if (end == std::string::npos) return {text, ""};
    return {text.substr(0, end), text.substr(end + 1)};
}

std::string shown(const std::optional<std::string> &value) {
    return value ? "=" + *value : "unset";
}

std::optional<int> count_code_points(const Bytes &text) {
    int count = 0;
    for (std::size_t i = 0; i < text.size(); count++) {
        const std::uint8_t lead = text[i++];
        const int more = lead < 0x80 ? 0 : lead < 0xC2 ? -1 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : lead < 0xF5 ? 3 : -1;
        if (more < 0 || text.size() - i < static_cast<std::size_t>(more)) return std::nullopt;
        std::uint32_t point = more ? lead & (0x3Fu >> more) : lead;
        for (int k = 0; k < more; k++, i++) {
            if ((text[i] & 0xC0) != 0x80) return std::nullopt;
            point = point << 6 | (text[i] & 0x3Fu);
        }
        if ((more == 2 && point < 0x800) || (more == 3 && (point < 0x10000 || point > 0x10FFFF)) ||
            (point >= 0xD800 && point < 0xE000))
            return std::nullopt;
    }
    return count;
}

} // namespace

PLUGWASM_EXPORT(echo) { return input_bytes(); }

PLUGWASM_EXPORT(utf8) {
    const auto count = count_code_points(input_bytes());
    if (!count) return Error{"not UTF-8"};
    return *count;
}

PLUGWASM_EXPORT(count_vowels) {
    const std::string vowels = config("vowels").value_or("aeiouAEIOU"), text = input_text();
    const auto count = std::count_if(text.begin(), text.end(), [&](char c) { return vowels.find(c) != std::string::npos; });
    std::uint64_t total = 0;
    if (const auto before = var::get("total")) std::memcpy(&total, before->data(), sizeof total);
    total += static_cast<std::uint64_t>(count);
    var::set("total", View(reinterpret_cast<const std::uint8_t *>(&total), sizeof total));
    return "{\"count\":" + std::to_string(count) + ",\"total\":" + std::to_string(total) + ",\"vowels\":\"" + vowels + "\"}";
}

PLUGWASM_EXPORT(config_get) { return shown(config(input_text())); }
PLUGWASM_EXPORT(var_get) { return shown(var::get(input_text())); }

PLUGWASM_EXPORT(var_set) {
    const auto [name, value] = split(input_text());
    var::set(name, value);
    return {};
}

PLUGWASM_EXPORT(var_delete) {
    var::remove(input_text());
    return {};
}

PLUGWASM_EXPORT(fail) {
    const auto [code, message] = split(input_text());
    return Error{message, std::atoi(code.c_str())};
}

PLUGWASM_EXPORT(panic) { std::abort(); }

PLUGWASM_EXPORT(exit) { std::_Exit(std::atoi(input_text().c_str())); }

PLUGWASM_EXPORT(log_message) {
    static constexpr std::string_view names[] = {"trace", "debug", "info", "warn", "error"};
    const auto [level, message] = split(input_text());
    const auto at = std::find(std::begin(names), std::end(names), level);
    log(static_cast<Level>(at - std::begin(names)), message);
    return {};
}

PLUGWASM_EXPORT(http) {
    auto [method, rest] = split(input_text());
    Request request{.url = "", .method = method};
    std::tie(request.url, rest) = split(rest);
    for (;;) {
        const auto [line, next] = split(rest);
        rest = next;
        if (line.empty()) break;
        const auto colon = line.find(": ");
        request.headers.emplace_back(line.substr(0, colon), line.substr(colon + 2));
    }
    request.body = rest;
    const Response response = request.send();
    const std::string headers = response.headers.text();
    std::string answer = "-";
    if (const auto at = headers.find("\"x-answer\""); at != std::string::npos) {
        const auto start = headers.find('"', at + 10) + 1;
        answer = headers.substr(start, headers.find('"', start) - start);
    }
    return std::to_string(response.status) + "\n" + answer + "\n" + response.body.text();
}

PLUGWASM_EXPORT(call_i32) { return host_i32(input_number<std::int32_t>().value_or(0)); }
PLUGWASM_EXPORT(call_i64) { return host_i64(input_number<std::int64_t>().value_or(0)); }
PLUGWASM_EXPORT(call_f32) { return host_f32(std::strtof(input_text().c_str(), nullptr)); }
PLUGWASM_EXPORT(call_f64) { return host_f64(std::strtod(input_text().c_str(), nullptr)); }
PLUGWASM_EXPORT(call_text) { return host_text(input_text()); }
PLUGWASM_EXPORT(call_bytes) { return host_bytes(input_bytes()); }

PLUGWASM_EXPORT(call_other) {
    host_other();
    return {};
}

PLUGWASM_EXPORT(churn) {
    const int n = input_number<int>().value_or(0);
    for (int i = 0; i < n; i++) Block freed(extism_alloc(65536));
    return n;
}
