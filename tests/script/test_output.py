"""What a function returns, as the output: by itself, and with `output="json"`."""

from __future__ import annotations

import json

import pytest

from plugwasm import GuestError, OptionError, OutputError, Plugin, script
from tests.support.scripts import need_engine

SOURCES = {
    "javascript": """
export const same = (value) => value;
export const nothing = () => {};
export const later = async (value) => value;
export const bytes = () => new Uint8Array([1, 2]);
export const buffer = () => new ArrayBuffer(2);
export const code = () => same;
export const given = () => { Host.outputString("as it is"); };
""",
    "python": """
import extism
def same(value): return value
def nothing(): pass
async def later(value): return value
def bytes(): return b"ab"
def buffer(): return bytearray(b"ab")
def code(): return same
def given(): extism.output_str("as it is")
""",
}


@pytest.fixture(params=SOURCES)
def language(request: pytest.FixtureRequest) -> str:
    need_engine(request.param)
    return str(request.param)


def make(language: str, **options: object) -> Plugin:
    return Plugin(script(language, SOURCES[language], **options))


@pytest.mark.parametrize("value", ["hi", "42", "null", '{"admin": true}', "", 'ü\u2028"\\\0😀'])
@pytest.mark.parametrize("function", ["same", "later"])
def test_json_keeps_text_text(language: str, function: str, value: str) -> None:
    """Text that looks like a number or an object is read as text by `returns=object`."""
    with make(language, output="json") as plugin:
        assert plugin.call(function, [value], returns=object) == [value]
        assert plugin.call(function, json.dumps(value, ensure_ascii=False), returns=object) == value


@pytest.mark.parametrize("value", [42, 1.5, True, None, [], {"a": [None]}])
def test_json_of_other_values(language: str, value: object) -> None:
    """Other values are what they are without it."""
    with make(language, output="json") as plugin:
        document = json.dumps(value)
        assert plugin.call("same", document, returns=object) == value
        assert plugin.call("same", document).decode().replace(" ", "") == document.replace(" ", "")


def test_json_of_nothing_is_null(language: str) -> None:
    """A function that returns nothing gives `null`, and not an empty output."""
    with make(language, output="json") as plugin:
        assert plugin.call("nothing") == b"null"
    with make(language) as plugin:
        assert plugin.call("nothing") == b""


def test_json_has_no_bytes(language: str) -> None:
    """Bytes, and what JSON does not have, are the script's mistake."""
    with make(language, output="json") as plugin:
        for function in ("bytes", "buffer", "code"):
            with pytest.raises(GuestError, match=r"JSON (does not have|has)"):
                plugin.call(function)
        assert plugin.call("same", "1") == b"1"
    with make(language) as plugin:
        assert len(plugin.call("bytes")) == len(plugin.call("buffer")) == 2


def test_what_the_kit_is_given_stays(language: str) -> None:
    """An output that a function sets by the kit is the output, whatever `output` says."""
    with make(language, output="json") as plugin:
        assert plugin.call("given") == b"as it is"


def test_without_json_text_stays_text(language: str) -> None:
    """By default text is the output as it is, and `returns=str` reads it."""
    with make(language) as plugin:
        assert plugin.call("same", '"hi"', returns=str) == "hi"
        with pytest.raises(OutputError):
            plugin.call("same", '"hi"', returns=object)


def test_output_is_one_of_two(language: str) -> None:
    """Another word is refused."""
    with pytest.raises(OptionError, match='output: expected "auto" or "json", got \'text\''):
        make(language, output="text")
