// plugwasm.hpp: write plugins in C++20, over the C kit's plugwasm.h.
//
//     #include "plugwasm.hpp"
//
//     PLUGWASM_EXPORT(greet) { return "Hello, " + plugwasm::input_text(); }
//
// Blocks of the host's memory free themselves. An export returns a `plugwasm::Result`: text, bytes,
// a number, a block, nothing (`return {};`) or an `Error`. Exceptions are not used, and need not be
// enabled. Where they are, one that leaves an export is the call's error: its `what()`, with code 1.
//
// JSON is a library's business. With nlohmann/json:
//
//     auto order = nlohmann::json::parse(plugwasm::input_text(), nullptr, false);
//     if (order.is_discarded()) return plugwasm::Error{"the input is not JSON"};
//     return nlohmann::json{{"sum", order["a"].get<int>() + order["b"].get<int>()}}.dump();
#ifndef PLUGWASM_HPP
#define PLUGWASM_HPP

#if __cplusplus < 202002L
#error "plugwasm.hpp needs C++20: compile with -std=c++20"
#endif

#include <array>
#include <charconv>
#include <concepts>
#include <cstdint>
#include <exception>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "plugwasm.h"

namespace plugwasm {

using Bytes = std::vector<std::uint8_t>;
using View = std::span<const std::uint8_t>;

inline View as_bytes(std::string_view text) {
    return {reinterpret_cast<const std::uint8_t *>(text.data()), text.size()};
}

/// A block of the host's memory, freed when it goes out of scope. It may be empty: handle 0.
class Block {
  public:
    Block() = default;
    explicit Block(pdk_handle handle) : handle_(handle) {}
    explicit Block(View bytes) : handle_(pdk_block(bytes.data(), bytes.size())) {}
    explicit Block(std::string_view text) : Block(as_bytes(text)) {}
    Block(Block &&other) noexcept : handle_(other.release()) {}
    Block &operator=(Block &&other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    Block(const Block &) = delete;
    Block &operator=(const Block &) = delete;
    ~Block() {
        if (handle_) extism_free(handle_);
    }

    /// The handle, for a host function. The block stays this object's.
    [[nodiscard]] pdk_handle handle() const noexcept { return handle_; }

    /// The handle, whose block is the caller's (or the host's) from now on.
    [[nodiscard]] pdk_handle release() noexcept { return std::exchange(handle_, 0); }

    explicit operator bool() const noexcept { return handle_ != 0; }
    [[nodiscard]] std::size_t size() const { return static_cast<std::size_t>(pdk_size(handle_)); }

    [[nodiscard]] Bytes bytes() const {
        Bytes copy(size());
        pdk_load(handle_, copy.data(), copy.size());
        return copy;
    }

    [[nodiscard]] std::string text() const {
        std::string copy(size(), '\0');
        pdk_load(handle_, copy.data(), copy.size());
        return copy;
    }

  private:
    pdk_handle handle_ = 0;
};

// ---- input and output -----------------------------------------------------------------------------

/// The input, as bytes.
[[nodiscard]] inline Bytes input_bytes() {
    Bytes all(static_cast<std::size_t>(pdk_input_size()));
    pdk_input(0, all.data(), all.size());
    return all;
}

/// The input, as text. It is not checked to be UTF-8.
[[nodiscard]] inline std::string input_text() {
    std::string all(static_cast<std::size_t>(pdk_input_size()), '\0');
    pdk_input(0, all.data(), all.size());
    return all;
}

/// The input as a decimal number, or nothing if it is none.
template <typename Number>
[[nodiscard]] std::optional<Number> input_number() {
    const std::string text = input_text();
    Number number{};
    const char *const end = text.data() + text.size();
    const auto [rest, failure] = std::from_chars(text.data(), end, number);
    if (failure != std::errc{} || rest != end) return std::nullopt;
    return number;
}

/// What an export returns if it fails. The host gets the message and the code.
struct Error {
    std::string message;
    std::int32_t code = 1;
};

/// What an export returns. Made of what it gives; see the head of this file.
class Result {
  public:
    Result() = default;
    Result(std::string_view text) { set(as_bytes(text)); }
    Result(const std::string &text) : Result(std::string_view(text)) {}
    Result(const char *text) : Result(std::string_view(text)) {}
    Result(View bytes) { set(bytes); }
    Result(const Bytes &bytes) { set(bytes); }
    Result(Block block) {
        const std::size_t size = block.size();
        extism_output_set(block.release(), size);
    }
    Result(const Error &error) : code_(error.code) { extism_error_set(Block(error.message).release()); }

    template <typename Number>
        requires std::integral<Number> || std::floating_point<Number>
    Result(Number number) {
        std::array<char, 64> digits;
        const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
        set(as_bytes({digits.data(), static_cast<std::size_t>(end - digits.data())}));
    }

    std::int32_t code() const { return code_; }

  private:
    void set(View bytes) { code_ = pdk_output(bytes.data(), bytes.size()); }

    std::int32_t code_ = 0;
};

namespace detail {

inline std::int32_t run(Result (*body)()) {
#if defined(__cpp_exceptions)
    try {
        return body().code();
    } catch (const std::exception &exception) {
        return Result(Error{exception.what()}).code();
    } catch (...) {
        return Result(Error{"an exception that is no std::exception left the export"}).code();
    }
#else
    return body().code();
#endif
}

} // namespace detail

/// An export: `PLUGWASM_EXPORT(name) { return …; }`.
#define PLUGWASM_EXPORT(name)                                                                      \
    static ::plugwasm::Result plugwasm_body_##name();                                              \
    extern "C" PDK_EXPORT(#name) std::int32_t plugwasm_export_##name() {                           \
        return ::plugwasm::detail::run(plugwasm_body_##name);                                      \
    }                                                                                              \
    static ::plugwasm::Result plugwasm_body_##name()

// ---- host functions -------------------------------------------------------------------------------

namespace detail {

template <typename T>
concept Number = std::integral<T> || std::floating_point<T>;

/// What a value of this type is for the host: a number, or the handle of a block.
template <typename T>
using Passed = std::conditional_t<Number<T> || std::is_void_v<T>, T, pdk_handle>;

/// Something that is passed, which lives until the call has returned.
template <typename T>
struct Argument {
    T value;
    pdk_handle passed() const { return value.handle(); }
};

template <Number T>
struct Argument<T> {
    T value;
    T passed() const { return value; }
};

inline Argument<Block> pass(std::string_view text) { return {Block(text)}; }
inline Argument<Block> pass(View bytes) { return {Block(bytes)}; }
inline Argument<Block> pass(Block block) { return {std::move(block)}; }
template <Number T>
Argument<T> pass(T number) {
    return {number};
}

template <typename T>
T receive(Passed<T> value) {
    if constexpr (Number<T>) return value;
    else if constexpr (std::same_as<T, std::string>) return Block(value).text();
    else if constexpr (std::same_as<T, Bytes>) return Block(value).bytes();
    else return T(value);
}

} // namespace detail

/// A function of the host; see PLUGWASM_HOST_FUNCTION.
template <typename Signature>
class HostFunction;

template <typename Result, typename... Arguments>
class HostFunction<Result(Arguments...)> {
  public:
    using Import = detail::Passed<Result>(detail::Passed<Arguments>...);

    constexpr explicit HostFunction(Import *import) : import_(import) {}

    Result operator()(Arguments... arguments) const {
        if constexpr (std::is_void_v<Result>) import_(detail::pass(std::move(arguments)).passed()...);
        else return detail::receive<Result>(import_(detail::pass(std::move(arguments)).passed()...));
    }

  private:
    Import *import_;
};

/// A function of the host, at namespace scope: `PLUGWASM_HOST_FUNCTION("extism:host/user", shout,
/// std::string(std::string_view))`, called as `shout("…")`. Integers and floating-point numbers pass as
/// they are, `std::string_view`, `View` and `Block` in blocks that are freed; what returns is a number,
/// `std::string`, `Bytes`, a `Block` or nothing. JSON is text.
#define PLUGWASM_HOST_FUNCTION(namespace_, name, ...)                                              \
    PLUGWASM_IMPORT(namespace_, #name)                                                             \
    ::plugwasm::HostFunction<__VA_ARGS__>::Import plugwasm_import_##name;                          \
    [[maybe_unused]] static constexpr ::plugwasm::HostFunction<__VA_ARGS__> name(                  \
        plugwasm_import_##name)

/// An import as it is: `PLUGWASM_IMPORT("namespace", "name") double name(int32_t);`.
#define PLUGWASM_IMPORT(namespace_, name)                                                          \
    extern "C" __attribute__((import_module(namespace_), import_name(name)))

// ---- config, vars and logs ------------------------------------------------------------------------

/// A value of the config, or nothing.
[[nodiscard]] inline std::optional<std::string> config(std::string_view key) {
    const Block value(extism_config_get(Block(key).release()));
    if (!value) return std::nullopt;
    return value.text();
}

/// The vars, which the host keeps from one call to the next. An empty value counts as none.
namespace var {

[[nodiscard]] inline std::optional<std::string> get(std::string_view name) {
    const Block value(extism_var_get(Block(name).release()));
    if (!value) return std::nullopt;
    return value.text();
}

/// Sets a var. The call fails if the host's limit is exceeded.
inline void set(std::string_view name, View value) {
    const pdk_handle key = Block(name).release();
    extism_var_set(key, Block(value).release());
}

inline void set(std::string_view name, std::string_view value) { set(name, as_bytes(value)); }

inline void remove(std::string_view name) { extism_var_set(Block(name).release(), 0); }

} // namespace var

enum class Level { trace, debug, info, warn, error };

/// Logs a message, if the host keeps messages of that level; nothing is copied if not.
inline void log(Level level, std::string_view message) {
    const auto number = static_cast<pdk_level>(level);
    if (!pdk_log_enabled(number)) return;
    static constexpr void (*functions[])(pdk_handle) = {
        [](pdk_handle text) { extism_log_trace(text); }, [](pdk_handle text) { extism_log_debug(text); },
        [](pdk_handle text) { extism_log_info(text); }, [](pdk_handle text) { extism_log_warn(text); },
        [](pdk_handle text) { extism_log_error(text); }};
    functions[static_cast<int>(level)](Block(message).release());
}

// ---- HTTP -----------------------------------------------------------------------------------------

/// The answer of a server. A status that is no success (404, …) is no error.
struct Response {
    std::int32_t status;
    Block body;
    Block headers; ///< JSON, names in lower case; empty where the host does not tell them
};

/// A request. The host must allow it: otherwise, and if no answer comes, the call ends in `send`
/// with the host's error.
struct Request {
    std::string url;
    std::string method = "GET";
    std::vector<std::pair<std::string, std::string>> headers = {};
    std::string body = {};

    Response send() const {
        std::vector<pdk_header> fields;
        for (const auto &[name, value] : headers) fields.push_back({name.c_str(), value.c_str()});
        const pdk_request request = {method.c_str(), url.c_str(), fields.data(), fields.size(),
                                     body.data(), body.size()};
        const pdk_response response = pdk_http(&request);
        return {response.status, Block(response.body), Block(response.headers)};
    }
};

} // namespace plugwasm

#endif
