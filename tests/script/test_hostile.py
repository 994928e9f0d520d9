"""Hostile scripts: whatever they do, a limit or an error ends it, and the host is not reached."""

from __future__ import annotations

import pytest

import plugwasm
from plugwasm import CallError, GuestError, Limits, Plugin, ScriptError, TrapError, script
from tests.support.scripts import make_plugin

LIMITS = Limits(timeout=1, memory_bytes=32 * 2**20)

ENDLESS = {
    "a loop": "for (;;);",
    "a regular expression": "/^(a+)+$/.test('a'.repeat(40) + 'b');",
    "promises": "return (async () => { for (;;) await 1; })();",
    "a thrown getter": "throw { get code() { for (;;); } };",
    "a thrown text": "throw { toJSON() { for (;;); } };",
    "a result": "return { toJSON() { for (;;); } };",
    "caught errors": "for (;;) try { null.x; } catch {}",
    "caught recursion": "function g() { try { g(); } catch { g(); } } g();",
    "caught memory": "const all = []; for (;;) try { all.push('x'.repeat(1e6)); } catch {}",
    "a finalizer": "const r = new FinalizationRegistry(() => { for (;;); }); for (;;) r.register({}, 1);",
}


@pytest.mark.parametrize("body", ENDLESS.values(), ids=ENDLESS)
def test_endless_calls_end_at_deadline(body: str) -> None:
    """A call that never ends is ended by the deadline, and the next call works."""
    source = f"export function f() {{ {body} }}\nexport const g = () => 1;"
    with make_plugin(source, limits=LIMITS) as plugin:
        with pytest.raises(plugwasm.TimeoutError):
            plugin.call("f")
        assert plugin.call("g", returns=int) == 1


@pytest.mark.parametrize("body", ["for (;;);", "/^(a+)+$/.test('a'.repeat(40) + 'b');"])
def test_endless_loading_ends_at_deadline(body: str) -> None:
    """A script that never ends while it is loaded is ended by the deadline, and the error says so."""
    with pytest.raises(plugwasm.TimeoutError) as caught:
        script("javascript", f"{body}\nexport const f = () => 1;", name="slow.js", limits=LIMITS)
    assert str(caught.value).startswith("loading the script `slow.js` did not end before its")


DEEP = {
    "calls": "return f();",
    "apply": "return Reflect.apply(f, null, []);",
    "getters": "const o = { get a() { return o.a; } }; return o.a;",
    "proxies": "let p = {}; for (let i = 0; i < 1e5; i++) p = new Proxy(p, {}); return p.x;",
    "bound functions": "let g = () => 1; for (let i = 0; i < 1e5; i++) g = g.bind(); return g();",
    "sorting": "[1, 2].sort(() => f());",
    "replacing": "'a'.replace(/a/, () => f());",
    "text of JSON": "return JSON.parse('['.repeat(1e5));",
    "values as JSON": "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; return a;",
    "flattening": "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; return a.flat(Infinity);",
    "source": "return eval('('.repeat(1e5));",
    "regular expressions": "return new RegExp('(?:'.repeat(1e5) + ')'.repeat(1e5)).test('');",
    "generators": "function* g() { yield* g(); } return g().next();",
}


@pytest.mark.parametrize("body", DEEP.values(), ids=DEEP)
def test_deep_recursion(body: str) -> None:
    """Any deep recursion is an error of the script or a trap, and the next call works."""
    source = f"export function f() {{ {body} }}\nexport const g = () => 1;"
    with make_plugin(source, limits=LIMITS) as plugin:
        with pytest.raises((GuestError, TrapError)):
            plugin.call("f")
        assert plugin.call("g", returns=int) == 1


def test_deep_recursion_can_be_caught() -> None:
    """A deep recursion of plain calls is a RangeError, and more stack allows more of it."""
    source = """
        export function f() {
          let depth = 0;
          const g = () => { depth++; g(); };
          try { g(); } catch (error) { return [error.name, depth]; }
        }
    """
    depths = []
    for stack in (2**19, 2**21):
        with make_plugin(source, limits=Limits(stack_bytes=stack)) as plugin:
            name, depth = plugin.call("f", returns=list)
        assert name == "RangeError"
        depths.append(depth)
    assert depths[0] > 400
    assert depths[1] > 2 * depths[0]


MEMORY = {
    "buffers": "const all = []; for (;;) all.push(new Uint8Array(1e6));",
    "objects": "const all = []; for (;;) all.push({ all });",
    "texts": "const all = []; for (let i = 0; ; i++) all.push(String(i).repeat(1000));",
    "one array": "const all = []; for (;;) all.push(1);",
    "maps": "const all = new Map(); for (let i = 0; ; i++) all.set(i, i);",
}


@pytest.mark.parametrize("body", MEMORY.values(), ids=MEMORY)
def test_memory_ends_at_limit(body: str) -> None:
    """A script that takes more and more memory gets an error at the limit that says so."""
    limits = Limits(memory_bytes=8 * 2**20)
    plugin = make_plugin(f"export function f() {{ {body} }}", limits=limits)
    with plugin, pytest.raises(CallError, match="out of memory"):
        plugin.call("f")


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


def test_names_that_need_escapes() -> None:
    """Names of scripts and exports can have any characters; messages stay in one line."""
    with pytest.raises(ScriptError) as caught:
        script("javascript", "export {", name="a\nb\x1b[2J.js")
    assert "\n" not in caught.value.message
    assert "\x1b" not in caught.value.message
    with make_plugin("const f = () => 1; export { f as 'a\\nb 😀' };") as plugin:
        assert plugin.call("a\nb 😀", returns=int) == 1
