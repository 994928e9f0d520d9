"""Hostile JavaScript: it harms itself, gets nothing of the host, and its errors are told as they are."""

from __future__ import annotations

import pytest

import plugwasm
from plugwasm import CallError, GuestError, Plugin, ScriptError, script
from tests.script.hostile import in_javascript, victim_beside
from tests.support.scripts import make_plugin

ABSENT = (
    "Atomics.wait(new Int32Array(new SharedArrayBuffer(8)), 0, 0)",
    "WebAssembly.Module",
    "Worker.prototype",
    "Deno.version",
    "Bun.version",
    "process.env",
    "require('fs')",
    "std.loadFile('/etc/passwd')",
    "os.open('/etc/passwd', 0)",
    "bjson.read(new ArrayBuffer(8))",
    "scriptArgs[0]",
    "load('/etc/passwd')",
    "navigator.userAgent",
    "document.cookie",
    "globalThis.constructor.constructor('return process')().env",
    "new Function('return process')().env",
    "(0, eval)('process').env",
    "this.process.env",
    "(function () { return this; })().process.env",
    "Host.constructor.constructor('return process')().env",
    "(() => {}).caller.arguments",
)


@pytest.mark.parametrize("expression", ABSENT)
def test_ways_out_are_not_there(expression: str) -> None:
    """No module of a system, thread, compiler or reader of bytecode is there, however it is asked."""
    with victim_beside(in_javascript(f"return {expression};")) as plugin:
        with pytest.raises(GuestError, match=r"ReferenceError|TypeError"):
            plugin.call("f")
        assert plugin.call("g", returns=int) == 1


def test_code_of_texts_stays_inside() -> None:
    """`eval` and `Function` make code that has what the script has, and nothing of the kit."""
    body = "return ['native', 'functions', 'kit', 'uncurry'].map((n) => { try { return eval(n); } catch (e) { return e.name; } });"
    with victim_beside(in_javascript(body)) as plugin:
        assert plugin.call("f", returns=list) == ["ReferenceError"] * 4


def test_nothing_of_the_system_is_there() -> None:
    """A script finds no files, processes, modules or WebAssembly."""
    names = [
        "process",
        "std",
        "os",
        "WebAssembly",
        "require",
        "module",
        "Worker",
        "scriptArgs",
        "print",
    ]
    source = f"export const f = () => {names}.filter((name) => name in globalThis);"
    with make_plugin(source) as plugin:
        assert plugin.call("f", returns=list) == []


@pytest.mark.parametrize("path", ["fs", "std", "os", "./x.js", "file:///etc/passwd"])
def test_nothing_can_be_imported(path: str) -> None:
    """No import leads anywhere, whatever it names."""
    plugin = make_plugin(f"export const f = () => import('{path}');")
    with plugin, pytest.raises(GuestError, match="cannot import"):
        plugin.call("f")


def test_http_needs_a_grant() -> None:
    """A script sends no requests but to the hosts that the application allows."""
    source = "export const f = () => Http.request({ url: 'http://127.0.0.1:1/' }).status;"
    with make_plugin(source) as plugin, pytest.raises(plugwasm.EgressDeniedError):
        plugin.call("f")


def test_blocks_that_are_not_the_scripts() -> None:
    """Offsets that were made up read nothing, or are refused by the host."""
    source = """
        export const read = (offset) => Memory.find(offset).readString();
        export const free = (offset) => { Memory.find(offset).free(); return 1; };
    """
    with make_plugin(source) as plugin:
        for offset in (0, 1, 2**31, 2**53, -1):
            for name in ("read", "free"):
                try:
                    assert plugin.call(name, offset) in (b"", b"1")
                except CallError:
                    pass
        assert plugin.call("free", 0, returns=int) == 1


def test_one_script_does_not_see_another() -> None:
    """What one script leaves in the globals is not there in another, nor in another instance."""
    leaves = script(
        "javascript", "globalThis.secret = 1; export const f = () => (globalThis.more = 1);"
    )
    with Plugin(leaves) as plugin:
        plugin.call("f")
    with (
        Plugin(leaves) as plugin,
        make_plugin("export const f = () => [typeof secret, typeof more];") as other,
    ):
        assert other.call("f", returns=list) == ["undefined", "undefined"]
        assert plugin.call("f", returns=int) == 1


RESIZED = {
    "sorting": ("t.sort(() => { b.resize(1); return 1; }); return t.length;", b"1"),
    "filling": ("t.fill({ valueOf() { b.resize(1); return 7; } }); return t.length;", b"1"),
    "setting": (
        "t.set({ length: 4096, get 0() { b.resize(1); return 1; } }); return t.length;",
        b"1",
    ),
    "slicing": ("t.slice({ valueOf() { b.resize(1); return 0; } }, 4096); return t.length;", b"1"),
    "copying": (
        "t.copyWithin(0, { valueOf() { b.resize(1); return 1; } }); return t.length;",
        b"1",
    ),
    "searching": (
        "t.lastIndexOf(0, { valueOf() { b.resize(1); return 4095; } }); return t.length;",
        b"1",
    ),
    "a view": ("new DataView(b).setUint8(4095, { valueOf() { b.resize(1); return 1; } });", None),
    "a result": ("b.resize(1); return b;", b"\0"),
    "a result out of bounds": (
        "const u = new Uint8Array(b, 100, 100); b.resize(10); return u;",
        None,
    ),
    "a result that was moved": ("b.transfer(); return b;", b""),
    "an array that was moved": ("b.transfer(); return t;", None),
    "an output that was moved": ("b.transfer(); Host.outputBytes(b);", b""),
    "a parameter of a constructor": (
        "return new Uint8Array({ length: 9, get 0() { b.resize(1); return 1; } }).length;",
        b"9",
    ),
}


@pytest.mark.parametrize(("body", "output"), RESIZED.values(), ids=RESIZED)
def test_buffers_that_change_in_use(body: str, output: bytes | None) -> None:
    """A buffer that is made smaller while it is used is not read or written past its end."""
    buffer = "const b = new ArrayBuffer(4096, { maxByteLength: 8192 }), t = new Uint8Array(b);"
    with victim_beside(in_javascript(f"{buffer} {body}")) as plugin:
        if output is None:
            with pytest.raises(GuestError, match=r"TypeError|RangeError"):
                plugin.call("f")
        else:
            assert plugin.call("f") == output
        assert plugin.call("g", returns=int) == 1


@pytest.mark.parametrize(
    "tampering",
    [
        "globalThis.Host = globalThis.JSON = globalThis.console = undefined;",
        "for (const name of Object.getOwnPropertyNames(globalThis)) if (!['globalThis', 'Reflect', 'TypeError'].includes(name)) Reflect.deleteProperty(globalThis, name);",
        "JSON.parse = JSON.stringify = () => { throw 1; };",
        "Array.prototype.push = Array.prototype.join = () => { throw 1; };",
        "String.prototype.trimEnd = RegExp.prototype.exec = Function.prototype.call = null;",
        "Function.prototype.toString = () => 'class {}';",
        "Object.prototype.input = undefined; Object.prototype.length = 5;",
        "Promise.prototype.then = () => { for (;;); };",
        "Array.prototype[Symbol.iterator] = null;",
        "Error.prototype.toString = null; Object.freeze(Error.prototype);",
    ],
)
def test_tampering_harms_only_the_script(tampering: str) -> None:
    """A script that replaces parts of the language still has its input, output and errors."""
    source = f"""{tampering}
        export function f(x) {{ if (x) throw new TypeError('no'); return [x]; }}
    """
    with make_plugin(source) as plugin:
        assert plugin.call("f", False) == b"[false]"
        with pytest.raises(GuestError, match=r"TypeError: no\n    at f \(script\.js:2:"):
            plugin.call("f", True)


def test_the_kit_leaks_no_primitives() -> None:
    """Hooks of the language do not see the functions that the kit gets from the engine."""
    source = """
        const seen = [];
        for (const name of ['apply', 'call', 'bind'])
            Function.prototype[name] = function () { seen.push(this.name); };
        for (const name of ['get', 'set', 'value', 'then', 'toJSON', 'native'])
            Object.defineProperty(Object.prototype, name, {
                __proto__: null, get() { seen.push(name); }, set() { seen.push(name); },
            });
        const look = (frame) => seen.push(typeof frame.getFunction, typeof frame.getThis);
        Error.prepareStackTrace = (error, frames) => { frames.forEach(look); return 'x'; };
        new Error().stack;
        export function f() {
            Host.inputString(); Var.get('x'); Config.get('x'); Memory.fromString('x').readString();
            try { Host.outputString(1); } catch {}
            return 0;
        }
        export function g() { return seen.join(); }
    """
    with victim_beside(source) as plugin:
        plugin.call("f")
        seen = set(plugin.call("g", returns=str).split(","))
    assert seen <= {"undefined", "get", "set", "value", "then", "toJSON", "native"}
    assert "undefined" in seen


THROWN = {
    "null": ("throw null;", "null"),
    "undefined": ("throw undefined;", "undefined"),
    "a symbol": ("throw Symbol('x');", "Symbol(x)"),
    "an integer": ("throw 5n;", "5n"),
    "an empty text": ("throw '';", "the script threw an empty text"),
    "frozen": ("throw Object.freeze(new TypeError('x'));", "TypeError: x"),
    "a getter that throws": (
        "throw Object.defineProperty(new Error('x'), 'message', { get() { throw 1; } });",
        "the script threw something that has no text",
    ),
    "a message that is an object": (
        "const e = new Error(); e.message = { toString: () => 'm' }; throw e;",
        "Error: m",
    ),
    "a code that is no number": (
        "throw Object.assign(new Error('x'), { code: { valueOf: () => 7 } });",
        "Error: x",
    ),
    "a revoked proxy": (
        "const { proxy, revoke } = Proxy.revocable({}, {}); revoke(); throw proxy;",
        "the script threw something that has no text",
    ),
    "no prototype": ("throw { __proto__: null };", "{}"),
    "a circle": ("const a = {}; a.a = a; throw a;", "{ a: [Circular] }"),
    "many errors": (
        "throw new AggregateError(Array.from({ length: 1e4 }, () => new Error('x')), 'many');",
        "AggregateError: many",
    ),
}


@pytest.mark.parametrize(("body", "told"), THROWN.values(), ids=THROWN)
def test_whatever_is_thrown_has_a_text(body: str, told: str) -> None:
    """Whatever a script throws, the host gets a text, and no code that is none."""
    with victim_beside(in_javascript(body)) as plugin:
        with pytest.raises(GuestError) as caught:
            plugin.call("f")
        assert str(caught.value.guest_message).splitlines()[0] == told
        assert caught.value.code == 1
        assert plugin.call("g", returns=int) == 1


@pytest.mark.parametrize("job", ["throw 1;", "null.x;", "eval('(');"])
def test_jobs_that_throw_hide_no_error(job: str) -> None:
    """The error of a call is what the function threw, also if a job throws after that."""
    body = f"queueMicrotask(() => {{ {job} }}); throw new TypeError('x');"
    with victim_beside(in_javascript(body)) as plugin:
        with pytest.raises(GuestError, match=r"^TypeError: x"):
            plugin.call("f")
        assert plugin.call("g", returns=int) == 1
    with pytest.raises(ScriptError, match="TypeError: x"):
        script("javascript", body)


def test_control_characters_of_errors() -> None:
    """What a script throws does not reach a terminal as it is."""
    body = r"throw new Error('a\x1b[2Jb\rc\0d\u202e');"
    with victim_beside(in_javascript(body)) as plugin, pytest.raises(GuestError) as caught:
        plugin.call("f")
    assert not set("\x1b\r\0\u202e") & set(str(caught.value))


def test_names_that_need_escapes() -> None:
    """Names of scripts and exports can have any characters; messages stay in one line."""
    with pytest.raises(ScriptError) as caught:
        script("javascript", "export {", name="a\nb\x1b[2J.js")
    assert "\n" not in caught.value.message
    assert "\x1b" not in caught.value.message
    with make_plugin("const f = () => 1; export { f as 'a\\nb 😀' };") as plugin:
        assert plugin.call("a\nb 😀", returns=int) == 1
