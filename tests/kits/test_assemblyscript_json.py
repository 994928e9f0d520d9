"""JSON in the AssemblyScript kit reads what is JSON, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import plugwasm
from conformance.building import Build

from .packages import need

pytestmark = [pytest.mark.toolchain, pytest.mark.slow, pytest.mark.timeout(600)]

GOOD = [
    "null", "true", "false", "0", "-0", "-1.5e+10", "1E5", "9007199254740993", '""', '"a"', "[]", "{}",
    r'"\u00e9\ud83d\ude00\n\r\t\b\f\"\\\/"', r'"\u0001"', '"\u2028😀"', '[1,[2,{"a":null}],"x"]',
    ' { "a" : 1 ,\n\t"b" : [ ] } ', '{"a":1,"a":2}', '{"\\"":0}', "[" * 100 + "]" * 100,
    json.dumps({str(n): n for n in range(40)})[:-1] + ',"3":"again","39":null}',
]  # fmt: skip
BAD = [
    "", " ", "t", "nullx", "01", "-01", "1.", ".5", "+1", "-", "1e", "1e+", "NaN", '"', '"\\', r'"\x"', r'"\u12"',
    r'"\u12g4"', '"\t"', "[", "{", "[1,]", "[,1]", "[1 2]", '{"a"}', '{"a":}', "{a:1}", '{"a":1,}', "1 2",
    "\x0b1", "\u00a01", "'a'", "[" * 200 + "]" * 200, '{"a":' * 5000,
]  # fmt: skip


@pytest.fixture(scope="module")
def plugin() -> plugwasm.Plugin:
    need("npm")
    build = Build.of(
        Path(__file__).with_name("assemblyscript"),
        {
            "build": [
                ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"],
                ["npx", "asc", "{program}.ts", "-O", "--use",
                 "abort=~lib/@plugwasm/pdk/assembly/index/abort", "-o", "{out}"],
            ],
            "sources": ["*.ts", "package.json", "../../../pdk/assemblyscript/assembly/*.ts"],
            "needs": ["npm"],
        },
    )  # fmt: skip
    return plugwasm.Plugin({"wasm": [{"path": str(build.path("json"))}]})


@pytest.mark.parametrize("text", GOOD)
def test_json_is_read_and_written(plugin: plugwasm.Plugin, text: str) -> None:
    """What Python reads as JSON comes back with the same meaning."""
    assert json.loads(plugin.call("mirror", text)) == json.loads(text)


@pytest.mark.parametrize("text", BAD, ids=lambda text: repr(text[:20]))
def test_no_json_is_refused(plugin: plugwasm.Plugin, text: str) -> None:
    """Anything else is null, also when it is nested deeply, and the plugin goes on."""
    with pytest.raises(plugwasm.GuestError) as caught:
        plugin.call("mirror", text)
    assert caught.value.guest_message == "not JSON"
    assert plugin.call("mirror", "1") == b"1"


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("-7", [True, False, -7, True, -7, "", None]),
        ("1.5", [True, False, 1.5, False, 0, "", None]),
        ("9223372036854775808", [True, False, 9223372036854775808, False, 0, "", None]),
        ("-9223372036854775808", [True, False, -9223372036854775808, True, -(2**63), "", None]),
        ("true", [True, True, None, False, 0, "", None]),
        ('"true"', [True, False, None, False, 0, "true", None]),
        ("null", [False, False, None, False, 0, "", None]),
        ("[1,[2]]", [True, False, None, False, 0, "", [2]]),
    ],
)
def test_value_is_read_as_its_own_type(
    plugin: plugwasm.Plugin, field: str, expected: list[object]
) -> None:
    """A value is never read as another type: the other types give their empty value."""
    answer = json.loads(plugin.call("types", f'{{"x":{field}}}'))
    if answer[2] is not None:
        answer[2] = float(answer[2])  # written in the shortest form, which is not all digits
    assert answer == expected


def test_missing_field_is_not_set(plugin: plugwasm.Plugin) -> None:
    """A field that is not there, and a field of what is no object, is not set."""
    for text in ("{}", "[]", "1", '"x"'):
        assert json.loads(plugin.call("types", text)) == [False, False, None, False, 0, "", None]


@pytest.mark.parametrize("repeat", [0, 1, 300])
def test_quoted_text_is_json(plugin: plugwasm.Plugin, repeat: int) -> None:
    """Each character that JSON escapes, and others beside it, are read as they were."""
    text = "".join(map(chr, range(256))) + "\u2028\ud7ff\uffff😀"
    assert json.loads(plugin.call("quoted", text * repeat)) == text * repeat
