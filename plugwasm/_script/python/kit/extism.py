"""What a script can use of the host: the surface of the official Python kit, and plain functions.

This is run by MicroPython, once, before any script.
"""

import builtins
import json
import sys

import _host

# A script that replaces builtins harms itself only.
for _name in dir(builtins):
    globals()[_name] = getattr(builtins, _name)

I32 = I64 = int
F32 = F64 = float
_script = None
_functions = []
_marked = []
_signatures = {}
_classes = {}
_host_functions = {}
_host_imports = None
_first_element = 0
_has_output = False
_output_is_json = False


class Error(Exception):
    """An error of the call whose text is what the host gets, without a traceback.

    `raise extism.Error("there is no such user", 404)`
    """

    def __init__(self, message, code=1):
        super().__init__(message)
        self.message = message
        self.code = code


class LogLevel:
    """The levels of the log."""

    Trace = 0
    Debug = 1
    Info = 2
    Warn = 3
    Error = 4


def log(level, message):
    """Write a message to the log of the plugin."""
    if not isinstance(message, (str, bytes)):
        message = json.dumps(message)
    _host.log(level, message)


# ---- input and output


def input_bytes():
    """Return the input."""
    return _host.input()


def input_str():
    """Return the input as text."""
    return _text(_host.input(), "the input")


def input_json(type=None):
    """Return what the input says in JSON, as this type if one is given."""
    value = _host.input_json()
    return value if type is None else _build(value, type, "the input")


def input(type=None):
    """Return the input as this type: `str`, `bytes`, a dataclass, or what JSON has."""
    if type is None:
        return None
    return _read(_host.input(), type, "the input")


def output_bytes(content):
    """Set the output."""
    global _has_output
    _host.output(content)
    _has_output = True


def output_str(text):
    """Set the output to text."""
    if not isinstance(text, str):
        raise TypeError("output_str: expected text, got " + _type_name(text))
    output_bytes(text)


def output_json(value):
    """Set the output to a value, as JSON."""
    output_bytes(_to_json(value))


def output(value=None):
    """Set the output to text, bytes, or a value as JSON."""
    if value is not None:
        output_bytes(_encode(value))


# ---- the host


class Config:
    """The settings that the application gave to the plugin."""

    @staticmethod
    def get_str(key):
        """Return a setting, or None."""
        found = _host.config(key)
        return None if found is None else _text(found, "the setting")

    @staticmethod
    def get_json(key):
        """Return what a setting says in JSON, or None."""
        found = _host.config(key)
        return None if found is None else json.loads(found)


Config.get = Config.get_str


class Var:
    """Values that the host keeps from one call to the next."""

    @staticmethod
    def get_bytes(key):
        """Return a value, or None."""
        return _host.var_get(key)

    @staticmethod
    def get_str(key):
        """Return a value as text, or None."""
        found = _host.var_get(key)
        return None if found is None else _text(found, "the var")

    @staticmethod
    def get_json(key):
        """Return what a value says in JSON, or None."""
        found = _host.var_get(key)
        return None if found is None else json.loads(found)

    @staticmethod
    def set(key, value):
        """Keep text or bytes."""
        _host.var_set(key, value)

    @staticmethod
    def delete(key):
        """Forget a value."""
        _host.var_set(key, None)


class HttpRequest:
    """A request, for `Http.request`."""

    def __init__(self, url, method=None, headers=None):
        self.url = url
        self.method = method
        self.headers = headers


class HttpResponse:
    """An answer to a request."""

    def __init__(self, status, body, headers):
        self._status = status
        self._body = body
        self._headers = headers

    @property
    def status_code(self):
        return self._status

    def data_bytes(self):
        return self._body

    def data_str(self):
        return _text(self._body, "the body")

    def data_json(self):
        return _host.parse_json(self._body, "the body")

    def headers(self):
        return self._headers


class Http:
    """Requests, to the hosts that the application allows."""

    @staticmethod
    def request(url, meth="GET", body=None, headers=None):
        """Send a request, and return the answer, whatever its status."""
        if isinstance(url, HttpRequest):
            meth, headers, url = url.method or meth, url.headers or headers, url.url
        named = {}
        for name, value in (headers or {}).items():
            named[name] = str(value)
        document = {"url": url, "method": meth, "headers": named}
        status, content, answered = _host.http(json.dumps(document), body)
        return HttpResponse(status, content, json.loads(answered) if answered else {})


class MemoryHandle:
    """A block of the host's memory."""

    def __init__(self, offset, length):
        self.offset = offset
        self.length = length


class memory:
    """Blocks of the host's memory, for host functions whose parameters are handles."""

    MemoryHandle = MemoryHandle

    @staticmethod
    def find(offset):
        length = _host.block_size(offset)
        return MemoryHandle(offset, length) if length else None

    @staticmethod
    def bytes(handle):
        return _host.block_read(handle.offset)

    @staticmethod
    def string(handle):
        return _text(_host.block_read(handle.offset), "the block")

    @staticmethod
    def free(handle):
        _host.block_free(handle.offset)

    @staticmethod
    def alloc(content):
        offset = _host.block_new(content)
        return MemoryHandle(offset, _host.block_size(offset))


class Codec:
    """A value with a way to write it as bytes."""

    def __init__(self, value):
        self.value = value

    def encode(self):
        raise NotImplementedError("encode")


class Json(Codec):
    """A value that is written as JSON. A dataclass may inherit from it."""

    def encode(self):
        return _to_json(self.value if hasattr(self, "value") else self).encode()

    @staticmethod
    def decode(content):
        return Json(_host.parse_json(content, "the text"))


# ---- decorators


def plugin_fn(function):
    """Export a function. In a script without this, each function without a leading underscore is."""
    _marked.append(function)
    return function


def shared_fn(function):
    """Refuse: exports with parameters, for other modules, cannot be made by a script."""
    raise NotImplementedError("shared_fn: a script exports functions for the host only")


def import_fn(module, name):
    """Replace a function by the host function of that name."""

    def decorate(function):
        signature = _signatures.get(function.__name__) or ([], None)
        returns = signature[1]
        found = _host_functions.get((module, name))
        if found is None:
            if _host_imports is None:
                raise ImportError("the application gives the plugin no function `%s` in `%s`" % (name, module))
            letters = [_letter(None if one[1] is None else _parse_type(one[1])) for one in signature[0]]
            type = "".join(letters) + ":" + ("" if returns in (None, ("None",)) else _letter(returns))
            found = (_host.add_host_function(_first_element, type), type)
            _host_functions[(module, name)] = found
            _host_imports.append({"namespace": module, "name": name, "type": type})
        index, type = found

        def call(*values):
            return _call_host(index, type, name, values, returns)

        return call

    return decorate


def _letter(kind):
    """Return the type of a parameter or a result of a host function: blocks are i64."""
    names = {"I32": "i", "F32": "f", "F64": "d", "float": "d"}
    return names.get(kind[0], "l") if kind else "l"


def _call_host(index, type, name, values, returns):
    letters, _, result = type.partition(":")
    if len(values) != len(letters):
        raise TypeError("%s() takes %d arguments, but %d were given" % (name, len(letters), len(values)))
    blocks = []
    arguments = []
    for letter, value in zip(letters, values):
        if isinstance(value, MemoryHandle):
            value = value.offset
        elif letter == "l" and not isinstance(value, int):
            value = _host.block_new(_encode(value))
            blocks.append(value)
        arguments.append(value)
    answer = _host.call(index, arguments)
    if result == "l" and returns not in (None, ("int",), ("I64",), ("None",)):
        content = _host.block_read(answer) if answer else None
        if answer:
            if answer in blocks:
                blocks.remove(answer)
            _host.block_free(answer)
        if content is None and returns != ("str",) and returns != ("bytes",):
            answer = None
        else:
            answer = _read(content or b"", returns, "the result of " + name)
    for block in blocks:
        _host.block_free(block)
    return answer


# ---- types, from annotations
#
# A type is a tuple: a name, and the types in its brackets; or a class.


def _parse_type(text):
    try:
        parsed, rest = _parse_union(text)
    except (IndexError, ValueError):
        return ("Any",)
    return ("Any",) if rest.strip() else parsed


def _parse_union(text):
    parsed, text = _parse_one(text)
    options = [parsed]
    while text.strip()[:1] == "|":
        parsed, text = _parse_one(text.strip()[1:])
        options.append(parsed)
    return (options[0] if len(options) == 1 else ("Union",) + tuple(options)), text


def _parse_one(text):
    text = text.strip()
    if text[0] in "\"'":
        inner, _, rest = text[1:].partition(text[0])
        return _parse_type(inner), rest
    end = 0
    while end < len(text) and (text[end].isalpha() or text[end].isdigit() or text[end] in "_."):
        end += 1
    if not end:
        raise ValueError(text)
    name, text = text[:end].split(".")[-1], text[end:]
    parts = [{"List": "list", "Dict": "dict", "Tuple": "tuple", "Set": "set"}.get(name, name)]
    if text.strip()[:1] == "[":
        text = text.strip()[1:]
        while True:
            if text.strip()[:3] == "...":
                part, text = ("...",), text.strip()[3:]
            else:
                part, text = _parse_union(text)
            parts.append(part)
            text = text.strip()
            if text[0] == "]":
                text = text[1:]
                break
            text = text[1:]
    if parts[0] == "Optional":
        parts = ["Union"] + parts[1:] + [("None",)]
    return tuple(parts), text


def _find_class(name):
    found = None if _script is None else getattr(_script, name, None)
    return found if isinstance(found, type) else None


_SIMPLE = {"str": str, "int": int, "bool": bool, "dict": dict, "list": list}


def _build(value, kind, where):
    """Return a value from JSON as a type."""
    if isinstance(kind, type):
        kind = (kind.__name__,) if kind in _SIMPLE.values() or kind is float else kind
    if isinstance(kind, type):
        return _build_class(value, kind, where)
    name = kind[0]
    if name == "Union":
        if value is None and ("None",) in kind:
            return None
        error = None
        for option in kind[1:]:
            if option == ("None",):
                continue
            try:
                return _build(value, option, where)
            except TypeError as failure:
                error = failure
        raise error
    if name == "float":
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        raise _mismatch(where, "float", value)
    if name in _SIMPLE:
        if not isinstance(value, _SIMPLE[name]) or (name == "int" and isinstance(value, bool)):
            raise _mismatch(where, name, value)
        if name == "list" and len(kind) > 1:
            return [_build(item, kind[1], "%s[%d]" % (where, i)) for i, item in enumerate(value)]
        if name == "dict" and len(kind) > 2:
            return {key: _build(item, kind[2], "%s[%r]" % (where, key)) for key, item in value.items()}
        return value
    if name in ("tuple", "set"):
        if not isinstance(value, list):
            raise _mismatch(where, "list", value)
        kinds = kind[1:] or (("Any",),)
        if name == "set" or len(kinds) == 1 or kinds[-1] == ("...",):
            kinds = (kinds[0],) * len(value)
        if len(kinds) != len(value):
            raise TypeError("%s: expected %d items, got %d" % (where, len(kinds), len(value)))
        items = [_build(item, one, "%s[%d]" % (where, i)) for i, (item, one) in enumerate(zip(value, kinds))]
        return tuple(items) if name == "tuple" else set(items)
    if name == "None":
        if value is not None:
            raise _mismatch(where, "null", value)
        return None
    found = _find_class(name)
    return value if found is None else _build_class(value, found, where)


def _build_class(value, kind, where):
    fields = getattr(kind, "__dataclass_fields__", None)
    if fields is None:
        return Json(value) if kind is Json else value
    if not isinstance(value, dict):
        raise _mismatch(where, "an object for " + kind.__name__, value)
    arguments = {}
    for key, item in value.items():
        field = fields.get(key)
        if field is None:
            raise TypeError("%s: %s has no field %r" % (where, kind.__name__, key))
        arguments[key] = _build(item, field.type, where + "." + key)
    try:
        return kind(**arguments)
    except TypeError as error:
        raise TypeError("%s: %s" % (where, error))


_JSON_NAMES = {dict: "an object", list: "a list", type(None): "null"}


def _type_name(value):
    return type(value).__name__


def _mismatch(where, expected, value):
    return TypeError("%s: expected %s, got %s" % (where, expected, _JSON_NAMES.get(type(value), _type_name(value))))


# ---- bytes and values


def _text(content, what):
    try:
        return content.decode()
    except UnicodeError:
        raise ValueError(what + " is not UTF-8")


def _read(content, kind, where):
    """Return bytes as a type."""
    if kind is str or kind == ("str",):
        return _text(content, where)
    if kind is bytes or kind == ("bytes",):
        return content
    if kind is bytearray or kind == ("bytearray",):
        return bytearray(content)
    return _build(_host.parse_json(content, where), kind, where)


def _plain(value):
    """Return a value as what JSON has."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, Json) and hasattr(value, "value"):
        return _plain(value.value)
    fields = getattr(type(value), "__dataclass_fields__", None)
    if fields is not None:
        return {name: _plain(getattr(value, name)) for name in fields}
    raise TypeError("%s is not something that JSON has" % _type_name(value))


def _to_json(value):
    return _host.to_json(value, _plain)


def _encode(value):
    if isinstance(value, (str, bytes, bytearray, memoryview)):
        return value
    if isinstance(value, Codec):
        return value.encode()
    return _to_json(value)


# ---- what the engine calls


def _describe(error):
    """Set the error of the call, and return its code."""
    code = getattr(error, "code", 1)
    if not isinstance(code, int) or isinstance(code, bool) or code == 0:
        code = 1
    _host.error(error.message if type(error) is Error and error.message else _report(error))
    return code


def _report(error):
    places = []
    for file, line, function in _host.traceback(error):
        if file == __file__:
            continue
        places.append('  File "%s", line %d' % (file, line) + (", in " + function if function else ""))
    if len(places) > 24:
        left_out = "  … %d more" % (len(places) - 20)
        places = places[:10] + [left_out] + places[-10:]
    name = type(error).__name__
    message = str(error)
    first = name + ": " + message if message else name
    return first + ("\nTraceback (most recent call last):\n" + "\n".join(places) if places else "")


def _drive(result):
    """Run a coroutine to its end: nothing in a script waits."""
    try:
        while True:
            result.send(None)
            raise RuntimeError("a coroutine waits for something that is not here")
    except StopIteration as end:
        return end.value


def _prepare(function, name, input):
    """Return how to call a function."""
    signature = _signatures.get(name)
    parameters = [] if signature is None else signature[0]
    named = []
    for parameter, annotation, has_default, stars in parameters:
        if stars not in ("", "/"):
            if stars == "*" and not parameter or stars == "**" or stars == "*":
                break
        if parameter:
            kind = None if annotation is None else _parse_type(annotation)
            named.append((parameter, kind, has_default))
    default = {"text": ("str",), "bytes": ("bytes",), "json": ("Any",)}[input]
    where = "the input of " + name
    if not named:
        return (0, function, None, where)
    if len(named) == 1:
        parameter, kind, has_default = named[0]
        kind = kind or default
        if has_default:
            return (2, function, kind, where)
        modes = {("bytes",): 1, ("bytearray",): 1, ("str",): 4, ("Any",): 5}
        return (modes.get(kind, 6), function, kind, where)
    kinds = [(parameter, kind or ("Any",), has_default) for parameter, kind, has_default in named]
    return (3, function, kinds, where)


def _call(index):
    """Call a function of the script, and return the code of the call."""
    global _has_output
    _has_output = False
    mode, function, kind, where = _functions[index]
    if mode == 0:
        result = function()
    elif mode == 6:
        result = function(_build(_host.input_json(), kind, where))
    elif mode == 5:
        result = function(_host.input_json())
    elif mode == 4:
        result = function(_host.input_text(where))
    elif mode == 3:
        result = function(**_read_arguments(kind, where))
    else:
        content = _host.input()
        if mode == 2 and not content:
            result = function()
        else:
            result = function(_read(content, kind, where))
    if type(result) is _generator:
        result = _drive(result)
    if _has_output:
        return 0
    if _output_is_json:
        _host.output(_to_json(result))
    elif result is not None:
        _host.answer(result, _encode, _plain)
    return 0


def _read_arguments(kinds, where):
    value = _host.input_json()
    if isinstance(value, list):
        if len(value) > len(kinds):
            raise TypeError("%s: expected %d items, got %d" % (where, len(kinds), len(value)))
        value = {kinds[i][0]: item for i, item in enumerate(value)}
    if not isinstance(value, dict):
        raise _mismatch(where, "an object with the arguments", value)
    arguments = {}
    for parameter, kind, has_default in kinds:
        if parameter in value:
            arguments[parameter] = _build(value.pop(parameter), kind, where + "." + parameter)
        elif not has_default:
            raise TypeError("%s: `%s` is missing" % (where, parameter))
    for key in value:
        raise TypeError("%s: there is no parameter %r" % (where, key))
    return arguments


_generator = type((lambda: (yield))())


def _load(content):
    """Run a script, and return what it exports, or why it failed: JSON."""
    global _script, _host_imports, _first_element, _output_is_json
    document = json.loads(content)
    source, file = document["source"], document["name"]
    _first_element = document["firstElement"]
    _output_is_json = document.get("output") == "json"
    for one in document["host"]:
        index = _host.add_host_function(_first_element, one["type"])
        _host_functions[(one["namespace"], one["name"])] = (index, one["type"])
    if document["builds"]:
        _host_imports = []
    _host.set_stack(document.get("stack", 0))
    for found in _host.signatures(source):
        if found[0] == "class":
            _classes[found[1]] = found[2]
        else:
            _signatures[found[1]] = (found[2], None if found[3] is None else _parse_type(found[3]))
    module = "plugin"
    try:
        _script = _host.run(module, file, source)
    except BaseException as error:
        return _failure(error, file, sys.modules[module])
    names = []
    if _marked:
        for function in _marked:
            names.append((function.__name__, function))
    else:
        for name in _signatures:
            function = getattr(_script, name, None)
            if name[0] != "_" and callable(function) and not isinstance(function, type):
                names.append((name, function))
    exports = []
    for name, function in sorted(names, key=lambda one: one[0]):
        if name not in exports:
            exports.append(name)
            _functions.append(_prepare(function, name, document.get("input", "json")))
    return json.dumps({"exports": exports, "imports": _host_imports or []})


_MOST_ERROR = 65536


def _failure(error, file, module):
    lines = [line for name, line, _ in _host.traceback(error) if name == file]
    line = lines[-1] if lines else None
    column = getattr(module, "__column__", None)
    answer = {
        "error": _report(error)[:_MOST_ERROR],
        "isSyntax": isinstance(error, SyntaxError),
        "line": line,
        "column": column if type(column) is int else None,
    }
    return json.dumps(answer)


_host.set_entry_points(_load, _call, _describe)
