"""Manifests in every form: what is accepted, what is refused with which message, and that no
secret is shown."""

from __future__ import annotations

import base64
import json
import pickle
from collections import OrderedDict
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugwasm._manifest import parsing
from plugwasm.errors import ManifestError, SourceError
from plugwasm.manifest import Manifest, MemoryOptions, WasmSource, load, parse
from tests.support.manifests import FULL, HASH, WRONG_TYPES, parse_error, with_value

SECRET = "canary-5f0c"


def as_toml(value: Any) -> str:
    """Return ``value`` as an inline TOML value. JSON's strings are valid TOML, except for the
    escape of DEL."""
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{as_toml(key)} = {as_toml(item)}" for key, item in value.items())
            + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return (
        json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        if isinstance(value, str)
        else json.dumps(value)
    )


def toml_document(document: dict[str, Any]) -> str:
    return "\n".join(f"{key} = {as_toml(value)}" for key, value in document.items())


def test_full_manifest() -> None:
    """A full manifest keeps every field."""
    parsed = parse(FULL)
    assert parsed.wasm[0] == WasmSource(path="lib.wasm", name="lib")
    assert parsed.wasm[1] == WasmSource(data=b"\0asm\1\0\0\0", hash=HASH)
    assert parsed.wasm[2] == WasmSource(
        url="https://example.com/m.wasm", headers={"X-Key": "k"}, method="POST", name="main"
    )
    assert parsed.memory == MemoryOptions(
        max_pages=16, max_http_response_bytes=1024, max_var_bytes=0
    )
    assert parsed.config == {"key": "value", "empty": ""}
    assert parsed.allowed_hosts == ["*.example.com", "localhost"]
    assert parsed.allowed_paths == {"ro:/srv/data": "/data"}
    assert parsed.timeout_ms == 500


def test_minimal_manifest() -> None:
    """A minimal manifest has the defaults."""
    parsed = parse({"wasm": [{"path": "m.wasm"}]})
    assert parsed == Manifest(wasm=[WasmSource(path="m.wasm")])
    assert (
        parsed.memory,
        parsed.config,
        parsed.allowed_hosts,
        parsed.allowed_paths,
        parsed.timeout_ms,
    ) == (
        MemoryOptions(),
        {},
        None,
        None,
        None,
    )


def test_null_for_optional_field() -> None:
    """Null is accepted for every optional field."""
    source = dict.fromkeys(("data", "url", "headers", "method", "name", "hash")) | {
        "path": "m.wasm"
    }
    memory = dict.fromkeys(("max_pages", "max_http_response_bytes", "max_var_bytes"))
    top = dict.fromkeys(("memory", "config", "allowed_hosts", "allowed_paths", "timeout_ms"))
    least = parse({"wasm": [{"path": "m.wasm"}]})
    assert parse({"wasm": [source], **top}) == least
    assert parse(json.dumps({"wasm": [source], **top, "memory": memory})) == least


@pytest.mark.parametrize(("field", "value", "expected", "got"), WRONG_TYPES)
def test_field_type_error(field: str, value: object, expected: str, got: str) -> None:
    """The error for a field of the wrong type names it, the expected type and the actual one."""
    document = with_value(field, value)
    for form in (document, json.dumps(document)):
        error = parse_error(form)
        said, _, hint = str(error).partition("; ")
        assert said == f"manifest field `{field}`: expected {expected}, got {got}"
        assert hint.startswith("write ") == (
            "m.wasm" in repr(value) and field in ("wasm", "wasm[0]")
        )
        assert error.field == field


@pytest.mark.parametrize(
    ("field", "value", "named", "got"),
    [
        ("config", {"key": 1}, 'config["key"]', "an integer"),
        ("config", {"key": None}, 'config["key"]', "null"),
        ("config", {"key": {"a": "b"}}, 'config["key"]', "an object"),
        ("allowed_paths", {"/srv": False}, 'allowed_paths["/srv"]', "a boolean"),
        ("wasm[2].headers", {"X-Key": 1}, 'wasm[2].headers["X-Key"]', "an integer"),
    ],
)
def test_value_type_error_names_key(field: str, value: object, named: str, got: str) -> None:
    """The error for a value of the wrong type names its key."""
    error = parse_error(with_value(field, value))
    assert str(error) == f"manifest field `{named}`: expected a string, got {got}"


@pytest.mark.parametrize("field", ["config", "allowed_paths", "wasm[2].headers"])
def test_key_not_string_is_refused(field: str) -> None:
    """A key that is not a string is refused."""
    error = parse_error(with_value(field, {1: "x"}))
    assert error.field == field
    assert "expected keys that are strings, got an integer" in str(error)


def test_field_name_not_string_is_refused() -> None:
    """A field name that is not a string is refused."""
    error = parse_error({"wasm": [{"path": "m.wasm"}], 1: 2})
    assert "expected names of fields that are strings" in str(error)


@pytest.mark.parametrize(
    ("document", "field", "hint"),
    [
        ({"wasm": [{"path": "m"}], "memroy": {}}, "memroy", "did you mean `memory`?"),
        ({"wasm": [{"path": "m"}], "memroy": None}, "memroy", "did you mean `memory`?"),
        ({"wasm": [{"path": "m"}], "timeout": 5}, "timeout", "did you mean `timeout_ms`?"),
        (
            {"wasm": [{"path": "m"}], "allow_hosts": []},
            "allow_hosts",
            "did you mean `allowed_hosts`?",
        ),
        ({"wasm": [{"path": "m"}, {"pth": "m"}]}, "wasm[1].pth", "did you mean `path`?"),
        ({"wasm": [{"path": "m", "hsah": HASH}]}, "wasm[0].hsah", "did you mean `hash`?"),
        (
            {"wasm": [{"path": "m"}], "memory": {"maxpages": 1}},
            "memory.maxpages",
            "did you mean `max_pages`?",
        ),
        (
            {"wasm": [{"path": "m"}], "memory": {"qqq": 1}},
            "memory.qqq",
            "known are max_pages, max_http_response_bytes, max_var_bytes",
        ),
    ],
)
def test_unknown_field_is_refused(document: dict[str, Any], field: str, hint: str) -> None:
    """An unknown field at any level is refused with a suggestion."""
    for form in (document, json.dumps(document)):
        error = parse_error(form)
        assert str(error) == f"manifest field `{field}`: unknown field; {hint}"
        assert error.field == field


def test_no_modules_is_refused() -> None:
    """A manifest without modules is refused."""
    assert str(parse_error({})) == "manifest field `wasm`: it is missing, and says what to run"
    assert (
        str(parse_error({"wasm": []}))
        == "manifest field `wasm`: expected at least one module, got an empty list"
    )


@pytest.mark.parametrize(
    ("source", "got"),
    [
        ({}, "none"),
        ({"name": "lib"}, "none"),
        ({"path": "m", "url": "http://h/m"}, "path and url"),
        ({"path": "m", "data": "", "url": "http://h/m"}, "path and data and url"),
    ],
)
def test_module_needs_one_source(source: dict[str, Any], got: str) -> None:
    """A module has exactly one of path, data and URL."""
    error = parse_error({"wasm": [{"path": "first"}, source]})
    assert (
        str(error)
        == f"manifest field `wasm[1]`: expected exactly one of `path`, `data` and `url`, got {got}"
    )


@pytest.mark.parametrize(("field", "value"), [("headers", {"a": "b"}), ("method", "POST")])
def test_headers_and_method_need_url(field: str, value: object) -> None:
    """Headers and a method are allowed only with a URL."""
    error = parse_error({"wasm": [{"path": "m", field: value}]})
    assert (
        str(error)
        == f"manifest field `wasm[0].{field}`: expected only together with `url`, got it with `path`"
    )


@pytest.mark.parametrize(
    "url", ["", "m.wasm", "ftp://h/m", "file:///etc/passwd", "http://", "https:///", "//h/m"]
)
def test_url_not_http_is_refused(url: str) -> None:
    """A URL that is not HTTP is refused."""
    error = parse_error({"wasm": [{"url": url}]})
    assert error.field == "wasm[0].url"
    assert "expected an http:// or https:// URL" in str(error)


@pytest.mark.parametrize("method", ["", "GET /x HTTP/1.1", "GE\r\nT", "GÉT"])
def test_invalid_method_is_refused(method: str) -> None:
    """A method that is not an HTTP token is refused."""
    assert (
        parse_error({"wasm": [{"url": "http://h/m", "method": method}]}).field == "wasm[0].method"
    )


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "ü"])
def test_invalid_header_name_is_refused(name: str) -> None:
    """A header name that is not an HTTP token is refused."""
    error = parse_error({"wasm": [{"url": "http://h/m", "headers": {name: SECRET}}]})
    assert str(error.field).startswith("wasm[0].headers[")
    assert SECRET not in str(error)


@pytest.mark.parametrize("value", ["\r\nX: y", "\n", "\0", "\x7f", "\u20ac"])
def test_invalid_header_value_is_refused(value: str) -> None:
    """A header value that cannot be sent is refused and not shown."""
    error = parse_error({"wasm": [{"url": "http://h/m", "headers": {"X-Key": SECRET + value}}]})
    assert error.field == 'wasm[0].headers["X-Key"]'
    assert SECRET not in str(error)


def test_a_hash_is_taken_in_either_case() -> None:
    assert parse({"wasm": [{"path": "m", "hash": HASH.upper()}]}).wasm[0].hash == HASH
    assert WasmSource(path="m", hash=HASH.upper()).hash == HASH


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("abc", "3 characters"),
        ("", "0 characters"),
        (HASH[1:], "63 characters"),
        (HASH + "0", "65 characters"),
        ("g" + HASH[1:], "other characters among them"),
        ("٣" + HASH[1:], "other characters among them"),
    ],
)
def test_invalid_hash_is_refused(text: str, got: str) -> None:
    """A hash that is not 64 hexadecimal digits is refused."""
    error = parse_error(with_value("wasm[0].hash", text))
    assert str(error) == f"manifest field `wasm[0].hash`: expected 64 hexadecimal digits, got {got}"


@pytest.mark.parametrize(
    "text", ["A", "AGFzbQ", "AGFz bQ=", "AGFzbQ==x", "AGFz*Q==", "=AAA", "AG-_", "ü", "\ud800"]
)
def test_invalid_base64_is_refused(text: str) -> None:
    """Data that is not base64 is refused."""
    error = parse_error({"wasm": [{"data": text}]})
    assert error.field == "wasm[0].data"
    assert "expected base64 text" in str(error)


def test_base64_with_line_breaks() -> None:
    """Base64 may have line breaks."""
    parsed = parse('[[wasm]]\ndata = """\nAGFz\n  bQEAAAA=\n"""\n')
    assert parsed.wasm[0].data == b"\0asm\1\0\0\0"


@pytest.mark.parametrize(
    ("field", "maximum"),
    [
        ("memory.max_pages", 65536),
        ("memory.max_http_response_bytes", 2**64 - 1),
        ("memory.max_var_bytes", 2**64 - 1),
        ("timeout_ms", 2**64 - 1),
    ],
)
def test_number_ranges(field: str, maximum: int) -> None:
    """A number is accepted at the ends of its range and refused just outside."""
    for value in (0, maximum):
        parse(with_value(field, value))
    for value in (-1, maximum + 1):
        error = parse_error(with_value(field, value))
        assert (
            str(error)
            == f"manifest field `{field}`: expected an integer from 0 to {maximum}, got {value}"
        )
    assert parse_error(with_value(field, 10**5000)).field == field


def test_a_name_given_twice_is_refused() -> None:
    error = parse_error(
        {"wasm": [{"path": "a", "name": "x"}, {"path": "b"}, {"path": "c", "name": "x"}]}
    )
    assert (
        str(error)
        == 'manifest field `wasm[2].name`: expected a name of its own, got "x", the name of wasm[0]'
    )
    parse({"wasm": [{"path": "a"}, {"path": "a"}]})


def test_an_empty_name_is_refused() -> None:
    assert parse_error({"wasm": [{"path": "a", "name": ""}]}).field == "wasm[0].name"


@pytest.mark.parametrize("document", [{"config": {"k": "\ud800"}}, {"config": {"\ud800": "v"}}])
def test_unencodable_config_is_refused(document: dict[str, Any]) -> None:
    """Config that cannot be encoded is refused."""
    assert str(parse_error({"wasm": [{"path": "m"}], **document}).field).startswith("config[")


@pytest.mark.parametrize("value", [None, 5, 1.5, True, ["m.wasm"], object(), {"m.wasm"}])
def test_invalid_value_is_refused(value: object) -> None:
    """A value that cannot be a manifest is refused."""
    assert "expected a manifest" in str(parse_error(value))


def test_mapping_with_bytes_and_paths() -> None:
    """A mapping may contain bytes, paths and other mappings."""
    for data in (b"(module)", bytearray(b"(module)"), memoryview(b"(module)")):
        assert parse({"wasm": [{"data": data}]}).wasm[0].data == b"(module)"
    parsed = parse(
        MappingProxyType(
            {
                "wasm": (OrderedDict(path=Path("m.wasm")), WasmSource(path="n.wasm")),
                "memory": MemoryOptions(max_pages=1),
                "config": MappingProxyType({"a": "b"}),
                "allowed_hosts": ("h",),
                "allowed_paths": {Path("/srv"): PurePosixPath("/data"), "ro:/etc": "/etc"},
            }
        )
    )
    assert [source.path for source in parsed.wasm] == ["m.wasm", "n.wasm"]
    assert parsed.memory.max_pages == 1
    assert parsed.config == {"a": "b"}
    assert parsed.allowed_hosts == ["h"]
    assert parsed.allowed_paths == {"/srv": "/data", "ro:/etc": "/etc"}


def test_parse_copies_its_input() -> None:
    """Parsing does not change its input or share it."""
    document = json.loads(json.dumps(FULL)) | {"allowed_paths": None}
    before = json.dumps(document)
    parsed = parse(document)
    parsed.config["new"] = "entry"
    assert json.dumps(document) == before


def test_object_rules_checked_at_once() -> None:
    """An object built in code is checked against the rules at once."""
    with pytest.raises(ManifestError, match="exactly one of"):
        WasmSource()
    with pytest.raises(ManifestError, match="65536, got 65537"):
        MemoryOptions(max_pages=65537)
    with pytest.raises(ManifestError, match="at least one module"):
        Manifest(wasm=[])


def test_object_types_checked_on_use() -> None:
    """The types of an object built in code are checked when it is used."""
    wrong = Manifest(wasm=[WasmSource(path=3)], config={"k": 5})  # type: ignore[arg-type,dict-item]
    assert parse_error(wrong).field == 'config["k"]'
    wrong = Manifest(wasm=[WasmSource(path="m"), WasmSource(url=5)])  # type: ignore[arg-type]
    assert parse_error(wrong).field == "wasm[1].url"
    wrong = Manifest(wasm=5)  # type: ignore[arg-type]
    assert parse_error(wrong).field == "wasm"
    assert "Manifest(" in repr(wrong)


def test_json_round_trip() -> None:
    """A manifest can be converted to JSON and back."""
    parsed = parse(FULL)
    assert parse(parsed) == parsed
    assert parse(parsed.to_dict()) == parsed
    assert parse(parsed.to_json()) == parsed
    assert parsed.to_dict() == FULL
    assert json.loads(parsed.to_json()) == FULL
    assert pickle.loads(pickle.dumps(parsed)) == parsed


def test_json_omits_defaults() -> None:
    """Fields with default values are omitted in JSON."""
    assert (
        parse({"wasm": [{"path": "m"}], "config": {}, "memory": {}}).to_json()
        == '{"wasm":[{"path":"m"}]}'
    )


def test_path_not_utf8_cannot_go_to_json() -> None:
    """A path that is not UTF-8 cannot be converted to JSON."""
    with pytest.raises(ManifestError, match="surrogates"):
        parse({"wasm": [{"path": "\udcff.wasm"}]}).to_json()


text = st.text(st.characters(codec="utf-8"), max_size=12)
sources = st.one_of(
    st.fixed_dictionaries(
        {"path": text.filter(lambda path: path and "\0" not in path)},
        optional={"hash": st.just(HASH)},
    ),
    st.fixed_dictionaries(
        {"data": st.binary(max_size=20).map(lambda raw: base64.b64encode(raw).decode())}
    ),
    st.fixed_dictionaries(
        {"url": st.just("https://h/m")},
        optional={
            "method": st.sampled_from(["GET", "POST"]),
            "headers": st.dictionaries(st.sampled_from("ab"), st.just("v")),
        },
    ),
)
paths = text.filter(lambda path: "\0" not in path and path.removeprefix("ro:") != "")
documents = st.fixed_dictionaries(
    {"wasm": st.lists(sources, min_size=1, max_size=3)},
    optional={
        "memory": st.fixed_dictionaries(
            {},
            optional={
                "max_pages": st.integers(0, 65536),
                "max_var_bytes": st.integers(0, 2**63 - 1),
            },
        ),
        "config": st.dictionaries(text, text, max_size=3),
        "allowed_hosts": st.lists(
            st.sampled_from(["h", "*.h.example", "127.0.0.1", "[::1]", "a_b.", "?"]), max_size=3
        ),
        "allowed_paths": st.dictionaries(paths, paths, max_size=3).filter(
            lambda given: len(set(given.values())) == len(given)
        ),
        "timeout_ms": st.integers(0, 2**63 - 1),
    },
)


@given(documents)
def test_mapping_json_and_toml_are_equal(document: dict[str, Any]) -> None:
    """A mapping, JSON and TOML with the same content give equal manifests."""
    parsed = parse(document)
    assert parse(json.dumps(document)) == parsed
    assert parse(json.dumps(document, ensure_ascii=False).encode()) == parsed
    assert parse(toml_document(document)) == parsed
    assert parse(parsed.to_json()) == parsed


names = st.one_of(
    st.sampled_from(
        [
            *Manifest.__struct_fields__,
            *WasmSource.__struct_fields__,
            *MemoryOptions.__struct_fields__,
        ]
    ),
    st.text(),
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
junk = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(names, inner), max_leaves=20
)


@given(
    st.one_of(
        junk,
        st.dictionaries(names, junk),
        st.builds(lambda extra: {"wasm": [{"path": "m"}], **extra}, st.dictionaries(names, junk)),
    )
)
def test_random_values(value: object) -> None:
    """Any value is a manifest or a manifest error."""
    try:
        parsed = parse(value)
    except ManifestError as error:
        assert pickle.loads(pickle.dumps(error)).field == error.field
    else:
        assert parse(parsed) == parsed


@given(
    st.one_of(st.text(), st.binary(), documents.map(json.dumps), documents.map(toml_document)),
    st.data(),
)
def test_random_text(content: str | bytes, data: st.DataObject) -> None:
    """Any text is a manifest or a manifest error."""
    at = data.draw(st.integers(0, len(content)))
    broken = (
        content[:at]
        + (data.draw(st.text(max_size=2)) if isinstance(content, str) else b"\xff")
        + content[at + 1 :]
    )
    for form in (content, broken):
        try:
            assert parse(form).wasm
        except ManifestError as error:
            assert len(str(error)) < 1000


def test_no_secret_shows_in_a_repr() -> None:
    source = {
        "url": f"https://user:{SECRET}@h/m?token={SECRET}#{SECRET}",
        "headers": {"X-Key": SECRET},
    }
    parsed = parse({"wasm": [source, {"data": SECRET.encode()}], "config": {"password": SECRET}})
    shown = repr(parsed) + "".join(parsed.__rich_repr__()) + "".join(parsed.wasm[0].__rich_repr__())
    assert SECRET not in shown
    for public in ("https://h/m?…", "X-Key", "password"):
        assert public in shown


@given(st.data())
def test_no_secret_shows_in_an_error(data: st.DataObject) -> None:
    document = {
        "wasm": [{"url": "https://h/m", "headers": {"X-Key": SECRET}}],
        "config": {"password": SECRET},
    }
    text = data.draw(st.sampled_from([json.dumps(document), toml_document(document)]))
    at = data.draw(st.integers(0, len(text) - 1))
    broken = (
        text[:at]
        + data.draw(st.sampled_from(["", '"', "{", "[", "\n", "\0", "1"]))
        + text[at + 1 :]
    )
    try:
        shown = repr(parse(broken))
    except ManifestError as error:
        shown = f"{error} {error!r} {error.__dict__} {error.__cause__!r}"
    assert SECRET not in shown


@pytest.mark.parametrize(
    "url", [f"https:/user:{SECRET}@h", f"user:{SECRET}@h", f"http//user:{SECRET}@h/m"]
)
def test_malformed_url_is_not_shown_whole(url: str) -> None:
    """The error for a malformed URL does not show all of it."""
    assert SECRET not in str(parse_error({"wasm": [{"url": url}]}))


@pytest.mark.parametrize(
    "content",
    [
        '{"a":' * 200_000,
        '{"wasm":' + "[" * 200_000,
        "a = " + "[" * 200_000,
        "a = " + "{a=" * 200_000,
        '{"a":"' + "x" * 3_000_000,
        "a." * 1_000_000 + "a = 1",
        "[" + "a . " * 500_000 + "a]",
        '"a".' * 500_000 + "a = 1",
        "x = {" + "a." * 500_000 + "a = 1}",
        "a" * 3_000_000,
        'a = "' + '\\"' * 1_000_000,
        '"' * 1_000_001 + "." * 100,
        "'\"" * 500_000 + "." * 100,
        "a = " + "9" * 100_000,
        '{"wasm": [], "' + "k" * 1_000_000 + '": 1}',
        "\n" * 3_000_000 + "\x01",
        b"\xff" * 3_000_000,
        b" " * 3_000_000,
        b"\0asm\1\0\0\0" + bytes(1000),
        "{",
        "",
    ],
    ids=range(21),
)
@pytest.mark.timeout(20)
def test_deep_nesting_and_junk_are_refused(content: str | bytes) -> None:
    """Deep nesting and megabytes of junk are refused quickly."""
    assert len(str(parse_error(content))) < 1000


def test_circular_mapping_is_refused() -> None:
    """A deeply nested or circular mapping is refused."""
    circle: dict[str, Any] = {}
    circle["wasm"] = [circle]
    assert parse_error(circle).field is not None
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    assert parse_error({"wasm": deep}).field == "wasm[0]"


def test_many_dots_are_no_dotted_key() -> None:
    """Text with many dots is not a dotted key."""
    config = {
        "hosts": "a.example.com, " * 50,
        "dots": "." * 500,
        "prose": "One. Two three. Four five six. " * 50,
    }
    document = {"wasm": [{"path": "m"}], "config": config}
    assert parse(toml_document(document)).config == config


def test_text_over_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text over the size limit is refused before it is parsed."""
    monkeypatch.setattr(parsing, "MAX_TEXT_BYTES", 40)
    document = '{"wasm":[{"path":"m"}]}'
    assert parse(document.ljust(40)).wasm
    assert "limit of 40 bytes" in str(parse_error(document.ljust(41)))


def test_byte_order_mark_and_blanks() -> None:
    """A byte order mark and leading blanks are ignored."""
    expected = parse({"wasm": [{"path": "m"}]})
    assert parse(b'\xef\xbb\xbf \n{"wasm":[{"path":"m"}]}') == expected
    assert parse('\ufeff# a comment\nwasm = [{path = "m"}]') == expected


@pytest.mark.parametrize(
    ("name", "content"),
    [("p.json", json.dumps(FULL)), ("p.toml", toml_document(FULL)), ("p", json.dumps(FULL))],
)
def test_load_reads_json_and_toml_files(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / "lib.wasm").write_bytes(b"\0asm\1\0\0\0")
    (tmp_path / name).write_text(content)
    loaded = load(tmp_path / name)
    assert loaded.wasm[0].path == str(tmp_path / "lib.wasm")
    assert loaded.wasm[1:] == parse(FULL).wasm[1:]
    assert loaded.config == FULL["config"]


def test_paths_relative_to_manifest_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All relative paths in a file are relative to its directory."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "p.json").write_text(
        '{"wasm":[{"path":"m.wasm"},{"path":"/absolute.wasm"}],'
        '"allowed_paths":{"data":"/a","ro:../shared":"/b","/srv":"/c","ro:/srv/ro":"/d","ro:.":"/e"}}'
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.wasm").write_bytes(b"")  # of the current directory, and not meant
    (tmp_path / "data").mkdir()
    loaded = load("plugins/p.json")
    assert [source.path for source in loaded.wasm] == ["plugins/m.wasm", "/absolute.wasm"]
    assert loaded.allowed_paths == {
        f"{folder}/data": "/a",
        f"ro:{folder}/../shared": "/b",
        "/srv": "/c",
        "ro:/srv/ro": "/d",
        f"ro:{folder}/.": "/e",
    }
    monkeypatch.chdir(folder)
    assert load("p.json").wasm[0].path == "m.wasm"


def test_file_error_names_file(tmp_path: Path) -> None:
    """The error for a file names the file."""
    path = tmp_path / "p.json"
    path.write_text('{"wasm":[{"path":5}]}')
    with pytest.raises(ManifestError) as caught:
        load(path)
    assert (
        str(caught.value)
        == f"{path}: manifest field `wasm[0].path`: expected a string or null, got an integer"
    )
    assert caught.value.field == "wasm[0].path"
    with pytest.raises(SourceError, match="no such file"):
        load(tmp_path / "none.json")
