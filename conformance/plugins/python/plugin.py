"""The test plugin of the conformance suite in Python."""

import struct

import extism
from extism import Config, Http, LogLevel, Var

USER = "extism:host/user"


@extism.import_fn(USER, "host_i32")
def host_i32(value: extism.I32) -> extism.I32: ...


@extism.import_fn(USER, "host_i64")
def host_i64(value: int) -> int: ...


@extism.import_fn(USER, "host_f32")
def host_f32(value: extism.F32) -> extism.F32: ...


@extism.import_fn(USER, "host_f64")
def host_f64(value: float) -> float: ...


@extism.import_fn(USER, "host_text")
def host_text(value: str) -> str: ...


@extism.import_fn(USER, "host_bytes")
def host_bytes(value: bytes) -> bytes: ...


@extism.import_fn(USER, "host_json")
def host_json(value: bytes) -> bytes: ...


@extism.import_fn("conformance:host", "host_other")
def host_other(): ...


def _describe(value):
    return "unset" if value is None else "=" + value


def echo(content: bytes):
    return content


def utf8(content: bytes):
    try:
        count = len(content.decode())
    except UnicodeError:
        count = None
    if count is None:
        raise extism.Error("not UTF-8")
    return str(count)


def count_vowels(text: str):
    vowels = Config.get("vowels") or "aeiouAEIOU"
    count = sum(character in vowels for character in text)
    total = struct.unpack("<q", Var.get_bytes("total") or bytes(8))[0] + count
    Var.set("total", struct.pack("<q", total))
    return {"count": count, "total": total, "vowels": vowels}


def config_get(key: str):
    return _describe(Config.get(key))


def var_get(name: str):
    return _describe(Var.get_str(name))


def var_set(text: str):
    name, _, value = text.partition("\n")
    Var.set(name, value)


def var_delete(name: str):
    Var.delete(name)


def fail(text: str):
    code, _, message = text.partition("\n")
    raise extism.Error(message, int(code))


def panic():
    raise ValueError("as it was asked to")


LEVELS = {
    "trace": LogLevel.Trace,
    "debug": LogLevel.Debug,
    "info": LogLevel.Info,
    "warn": LogLevel.Warn,
    "error": LogLevel.Error,
}


def log_message(text: str):
    level, _, message = text.partition("\n")
    extism.log(LEVELS[level], message)


def add(a: int, b: int):
    return {"sum": a + b}


def http(text: str):
    method, url, body = text.split("\n", 2)
    headers = {}
    while True:
        line, _, body = body.partition("\n")
        if not line:
            break
        name, _, value = line.partition(": ")
        headers[name] = value
    response = Http.request(url, method, body, headers)
    answer = response.headers().get("x-answer", "-")
    return f"{response.status_code}\n{answer}\n{response.data_str()}"


def call_i32(value: int):
    return str(host_i32(value))


def call_i64(value: int):
    return str(host_i64(value))


def _shortest(value):
    return str(int(value)) if value == int(value) else str(value)


def call_f32(value: float):
    return _shortest(host_f32(value))


def call_f64(value: float):
    return _shortest(host_f64(value))


def call_text(text: str):
    return host_text(text)


def call_bytes(content: bytes):
    return host_bytes(content)


def call_json(content: bytes):
    return host_json(content)


def call_other():
    host_other()


def churn(count: int):
    content = bytes(65536)
    for _ in range(count):
        extism.memory.free(extism.memory.alloc(content))
    return str(count)
