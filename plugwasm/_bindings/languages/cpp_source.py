"""Parts of bindings for C++ that are the same for all schemas."""

from __future__ import annotations

__all__ = ["CODECS", "EXPECTED", "HEAD", "READING"]

HEAD = """\
#ifndef BINDINGS_HPP
#define BINDINGS_HPP

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#define JSON_NOEXCEPTION 1
#define JSON_NO_IO 1
#include "nlohmann/json.hpp"
#include "plugwasm.hpp"
"""

EXPECTED = """\
/// A value, or why there is none.
template <typename T>
class Expected {
  public:
    Expected(T value) : value_(std::move(value)) {}
    Expected(plugwasm::Error error) : value_(std::move(error)) {}

    explicit operator bool() const { return value_.index() == 0; }
    T &operator*() { return *std::get_if<0>(&value_); }
    const T &operator*() const { return *std::get_if<0>(&value_); }
    const plugwasm::Error &error() const { return *std::get_if<1>(&value_); }

  private:
    std::variant<T, plugwasm::Error> value_;
};

/// Nothing, or why something failed.
template <>
class Expected<void> {
  public:
    Expected() = default;
    Expected(plugwasm::Error error) : error_(std::move(error)) {}

    explicit operator bool() const { return !error_; }
    const plugwasm::Error &error() const { return *error_; }

  private:
    std::optional<plugwasm::Error> error_;
};

/// Any JSON.
using Json = nlohmann::json;

/// Bytes, which are base64 in JSON.
struct Bytes {
    std::vector<std::uint8_t> data{};
};"""

CODECS = """\
/// What could not be read.
static std::string problem;

[[maybe_unused]] static bool fail(std::string_view expected) {
    if (problem.empty()) problem = "expected " + std::string(expected);
    return false;
}

template <typename T>
bool read_value(const Json &json, T &into) {
    return Codec<T>::read(json, into);
}

template <typename T>
Json write_value(const T &value) {
    return Codec<T>::write(value);
}

template <typename T>
bool read_field(const Json &json, const char *name, T &into) {
    static const Json missing;
    const auto found = json.find(name);
    if (read_value(found == json.end() ? missing : *found, into)) return true;
    if (problem.find(" in `") == std::string::npos) problem += " in `" + std::string(name) + "`";
    return false;
}

template <>
struct Codec<std::string> {
    static bool read(const Json &json, std::string &into) {
        if (!json.is_string()) return fail("a string");
        into = json.get_ref<const std::string &>();
        return true;
    }
    static Json write(const std::string &value) { return value; }
};

template <>
struct Codec<bool> {
    static bool read(const Json &json, bool &into) {
        if (!json.is_boolean()) return fail("true or false");
        into = json.get<bool>();
        return true;
    }
    static Json write(bool value) { return value; }
};

template <typename T>
    requires std::integral<T>
struct Codec<T> {
    static bool read(const Json &json, T &into) {
        if (json.is_number_unsigned()) {
            const auto number = json.get<std::uint64_t>();
            if (!std::in_range<T>(number)) return fail("a number in range");
            into = static_cast<T>(number);
            return true;
        }
        if (!json.is_number_integer()) return fail("a whole number");
        const auto number = json.get<std::int64_t>();
        if (!std::in_range<T>(number)) return fail("a number in range");
        into = static_cast<T>(number);
        return true;
    }
    static Json write(T value) { return value; }
};

template <typename T>
    requires std::floating_point<T>
struct Codec<T> {
    static bool read(const Json &json, T &into) {
        if (!json.is_number()) return fail("a number");
        into = static_cast<T>(json.get<double>());
        return true;
    }
    static Json write(T value) { return value; }
};

template <>
struct Codec<Json> {
    static bool read(const Json &json, Json &into) {
        if (!json.is_object()) return fail("an object");
        into = json;
        return true;
    }
    static Json write(const Json &value) { return value; }
};

template <>
struct Codec<Bytes> {
    static constexpr std::string_view digits =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    static bool read(const Json &json, Bytes &into) {
        if (!json.is_string()) return fail("base64");
        std::string_view text = json.get_ref<const std::string &>();
        if (text.size() % 4) return fail("base64");
        for (int i = 0; i < 2 && text.ends_with('='); i++) text.remove_suffix(1);
        into.data.clear();
        std::uint32_t bits = 0;
        for (std::size_t i = 0; i < text.size(); i++) {
            const std::size_t digit = digits.find(text[i]);
            if (digit == std::string_view::npos) return fail("base64");
            bits = bits << 6 | static_cast<std::uint32_t>(digit);
            if (i % 4) into.data.push_back(static_cast<std::uint8_t>(bits >> (6 - 2 * (i % 4))));
        }
        return true;
    }

    static Json write(const Bytes &value) {
        std::string text;
        const auto &data = value.data;
        for (std::size_t i = 0; i < data.size(); i += 3) {
            const std::size_t more = data.size() - i;
            const std::uint32_t bits =
                data[i] << 16 | (more > 1 ? data[i + 1] << 8 : 0) | (more > 2 ? data[i + 2] : 0);
            text += digits[bits >> 18];
            text += digits[bits >> 12 & 63];
            text += more > 1 ? digits[bits >> 6 & 63] : '=';
            text += more > 2 ? digits[bits & 63] : '=';
        }
        return text;
    }
};

template <typename T>
struct Codec<std::optional<T>> {
    static bool read(const Json &json, std::optional<T> &into) {
        if (json.is_null()) return into.reset(), true;
        return read_value(json, into.emplace());
    }
    static Json write(const std::optional<T> &value) {
        return value ? write_value(*value) : Json();
    }
};

template <typename T>
struct Codec<std::shared_ptr<T>> {
    static bool read(const Json &json, std::shared_ptr<T> &into);
    static Json write(const std::shared_ptr<T> &value) {
        return value ? write_value(*value) : Json();
    }
};

template <typename T>
struct Codec<std::vector<T>> {
    static bool read(const Json &json, std::vector<T> &into) {
        if (!json.is_array()) return fail("a list");
        into.clear();
        into.reserve(json.size());
        for (const Json &item : json) {
            T one{};
            if (!read_value(item, one)) return false;
            into.push_back(std::move(one));
        }
        return true;
    }
    static Json write(const std::vector<T> &value) {
        Json json = Json::array();
        for (const T &item : value) json.push_back(write_value(item));
        return json;
    }
};

template <typename T>
struct Codec<std::map<std::string, T>> {
    static bool read(const Json &json, std::map<std::string, T> &into) {
        if (!json.is_object()) return fail("an object");
        into.clear();
        for (const auto &[key, item] : json.items()) {
            if (!read_value(item, into[key])) return false;
        }
        return true;
    }
    static Json write(const std::map<std::string, T> &value) {
        Json json = Json::object();
        for (const auto &[key, item] : value) json[key] = write_value(item);
        return json;
    }
};

template <typename T>
bool Codec<std::shared_ptr<T>>::read(const Json &json, std::shared_ptr<T> &into) {
    if (json.is_null()) return into.reset(), true;
    into = std::make_shared<T>();
    return read_value(json, *into);
}

/// Read a property that must be there, and is held by a pointer.
template <typename T>
bool read_required(const Json &json, const char *name, std::shared_ptr<T> &into) {
    const auto found = json.find(name);
    if (found != json.end() && !found->is_null()) return read_field(json, name, into);
    fail("an object");
    problem += " in `" + std::string(name) + "`";
    return false;
}"""

READING = """\
/// The deepest JSON that is read. The stack of a plugin is small.
static constexpr int max_levels = 64;

[[maybe_unused]] static bool is_too_deep(std::string_view text) {
    int levels = 0;
    bool in_string = false;
    for (std::size_t i = 0; i < text.size(); i++) {
        const char c = text[i];
        if (in_string) {
            if (c == '\\\\') i++;
            else in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            if (++levels > max_levels) return true;
        } else if (c == ']' || c == '}') {
            levels--;
        }
    }
    return false;
}

template <typename T>
bool read_json(const std::string &text, T &into) {
    problem.clear();
    if (is_too_deep(text)) return problem = "the JSON is nested too deeply", false;
    const Json json = Json::parse(text, nullptr, false);
    if (json.is_discarded()) return problem = "the text is not JSON", false;
    return read_value(json, into);
}

template <typename T>
std::string write_json(const T &value) {
    return write_value(value).dump(-1, ' ', false, Json::error_handler_t::replace);
}

[[maybe_unused]] static bool is_utf8(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    for (std::size_t i = 0; i < text.size();) {
        const unsigned char first = byte(i++);
        if (first < 0x80) continue;
        const std::size_t more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
        if (first < 0xc2 || first > 0xf4 || more > text.size() - i) return false;
        const unsigned char second = byte(i);
        if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f)) return false;
        if ((first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f)) return false;
        for (const std::size_t end = i + more; i < end; i++) {
            if ((byte(i) & 0xc0) != 0x80) return false;
        }
    }
    return true;
}

[[maybe_unused]] static bool read_text(std::string text, std::string &into) {
    problem.clear();
    if (!is_utf8(text)) return problem = "the text is not UTF-8", false;
    into = std::move(text);
    return true;
}

template <typename T>
bool read_choice(const std::string &text, T &into) {
    problem.clear();
    return Codec<T>::from_text(text, into);
}"""
