"""Words that names cannot be, by language."""

from __future__ import annotations

import re

__all__ = ["CPP", "GO", "JAVASCRIPT", "RUST", "ZIG", "C", "words"]


def words(text: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(re.findall(r"\w+", text))


RUST = words(
    "abstract as async await become box break const continue crate do dyn else enum extern false "
    "final fn for gen if impl in let loop macro match mod move mut override priv pub ref return "
    "self Self static struct super trait true try type typeof union unsafe unsized use virtual "
    "where while yield"
)
GO = words(
    "break case chan const continue default defer else fallthrough for func go goto if import "
    "interface map package range return select struct switch type var"
)
ZIG = words(
    "addrspace align allowzero and anyframe anytype asm async await break callconv catch comptime "
    "const continue defer else enum errdefer error export extern fn for if inline linksection "
    "noalias noinline nosuspend opaque or orelse packed pub resume return struct suspend switch "
    "test threadlocal try union unreachable usingnamespace var volatile while "
    "anyerror anyopaque bool comptime_float comptime_int false isize noreturn null true type "
    "undefined usize void f16 f32 f64 f80 f128 c_char c_int c_long c_longlong c_short c_uint "
    "c_ulong c_ulonglong c_ushort c_longdouble"
)
C = words(
    "alignas alignof auto bool break case char const constexpr continue default do double else "
    "enum extern false float for goto if inline int long nullptr register restrict return short "
    "signed sizeof static static_assert struct switch thread_local true typedef typeof "
    "typeof_unqual union unsigned void volatile while asm main NULL"
)
CPP = C | words(
    "and and_eq bitand bitor catch char8_t char16_t char32_t class co_await co_return co_yield "
    "compl concept consteval constinit const_cast decltype delete dynamic_cast explicit export "
    "friend mutable namespace new noexcept not not_eq operator or or_eq private protected public "
    "reinterpret_cast requires static_cast template this throw try typeid typename using virtual "
    "wchar_t xor xor_eq std"
)
JAVASCRIPT = words(
    "abstract any arguments as async await bool boolean break case catch class const continue "
    "constructor debugger declare default delete do else enum eval export extends false finally "
    "for from function get if implements import in instanceof interface is keyof let module "
    "namespace new null number of override package private protected public readonly require "
    "return set static string super switch symbol this throw true try type typeof undefined var "
    "void while with yield i8 i16 i32 i64 isize u8 u16 u32 u64 usize f32 f64 v128"
)
