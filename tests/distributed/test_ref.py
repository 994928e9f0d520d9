"""A `PluginRef` is a small value: sent to another process, it runs the plugin that was pinned
here with that process's secrets and functions."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import plugwasm
from plugwasm import FromEnvironment, PluginRef
from plugwasm._distributed import ref as ref_module
from tests.support.guests import export, guest, manifest, number
from tests.support.http_server import Connection, Request, Server, reply
from tests.support.paths import ROOT
from tests.support.threads import InThread

SECRET = "canary-77af"

ECHO = guest(export("echo", "(call $echo)"))
CONFIG = guest(export("secret", "(call $give (call $config_get <<secret>>))"))
COUNT = guest(
    "(global $n (mut i64) (i64.const 0))"
    + export(
        "count",
        "(global.set $n (i64.add (global.get $n) (i64.const 1))) (call $answer (global.get $n))",
    )
)
HOST = guest(
    '(import "extism:host/user" "twice" (func $twice (param i64) (result i64)))'
    + export("run", "(call $answer (call $twice (i64.const 21)))")
)
LOOP = guest(export("loop", "(loop $forever (br $forever))"))


def sha256(content: bytes | str) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def send_ref(ref: PluginRef) -> PluginRef:
    """Return the ref as another process receives it."""
    return pickle.loads(pickle.dumps(ref))  # type: ignore[no-any-return]


@pytest.fixture
def call_elsewhere(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Call an export of a ref in a process that shares only files with this one. Return its
    status and output."""
    program = (
        "import pickle, sys\n"
        "try:\n"
        "    with pickle.loads(sys.stdin.buffer.read()).plugin() as plugin:\n"
        "        print(plugin.call(*sys.argv[1:]).decode('latin-1'))\n"
        "except Exception as error:\n"
        "    print(f'{type(error).__name__}: {error}')\n"
        "    sys.exit(1)\n"
    )

    def run(ref: PluginRef, *call: str, **environment: str) -> tuple[int, str]:
        folder = tmp_path / "elsewhere"
        folder.mkdir(exist_ok=True)
        env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"} | environment
        run = subprocess.run(
            [sys.executable, "-c", program, *call],
            input=pickle.dumps(ref),
            cwd=folder,
            env=env,
            capture_output=True,
            timeout=60,
        )
        assert not run.stderr, run.stderr.decode()
        return run.returncode, run.stdout.decode().rstrip("\n")

    return run


@pytest.fixture
def host_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a module that other processes can import too."""
    name = f"hosts_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(
        "import plugwasm\n"
        "def twice(a: int) -> int:\n    return 2 * a\n"
        "@plugwasm.host_fn(name='twice')\ndef decorated(a: int) -> int:\n    return 2 * a\n"
        "class Inner:\n    @staticmethod\n    def twice(a: int) -> int:\n        return 2 * a\n"
        "def unannotated(a):\n    return a\n"
        "made_in = lambda a: a\n"
        "answer = 42\n"
        "policy = plugwasm.Egress(allowed_hosts=['localhost'], max_redirects=3)\n"
        "options = plugwasm.WasiOptions(clock=plugwasm.FrozenClock(5))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import importlib

    module = importlib.import_module(name)
    yield module
    registered = plugwasm._host.registry.registered
    registered.remove(module.decorated)
    del sys.modules[name]


# A value


def test_sent_ref_is_equal() -> None:
    """A ref that was sent is equal and has the same hash."""
    ref = PluginRef(
        ECHO, config={"a": "b"}, limits=plugwasm.Limits(timeout=2.0), fuel_limit=10_000, name="echo"
    )
    copy = send_ref(ref)
    assert copy == ref
    assert hash(copy) == hash(ref)
    assert {ref: 1}[copy] == 1
    assert (copy.name, copy.limits, copy.fuel_limit, copy.digests) == (
        "echo",
        ref.limits,
        10_000,
        (sha256(ECHO),),
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"config": {"a": "c"}},
        {"config": {"a": FromEnvironment("A")}},
        {"limits": plugwasm.Limits(timeout=3.0)},
        {"name": "other"},
        {"fuel_limit": 5},
        {"wasi": True},
        {"egress": plugwasm.Egress(allowed_hosts=["example.com"])},
        {"http_response_headers": True},
        {"functions": ["os.path:join"]},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_refs_differ_by_setting(changed: dict[str, Any]) -> None:
    """Refs that differ in one setting are not equal."""
    settings = {"config": {"a": "b"}}
    assert PluginRef(ECHO, **settings) != PluginRef(ECHO, **settings | changed)
    assert PluginRef(ECHO, **settings) != PluginRef(COUNT, **settings)
    assert PluginRef(ECHO, **settings) != "a ref"


def test_equal_egress_makes_equal_refs() -> None:
    """Refs with equal egress policies are equal."""
    one, other = (
        PluginRef(ECHO, egress=plugwasm.Egress(allowed_hosts=["example.com"], max_redirects=1))
        for _ in range(2)
    )
    assert one == send_ref(other)


def test_a_ref_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="cannot be changed"):
        PluginRef(ECHO).name = "other"
    with pytest.raises(AttributeError, match="cannot be changed"):
        FromEnvironment("A").name = "B"


def test_pickle_size(tmp_path: Path) -> None:
    """A ref to a large module is small, and one that embeds it is not."""
    path = tmp_path / "large.wat"
    path.write_text(ECHO + ";;" + "x" * 500_000)
    assert len(pickle.dumps(PluginRef(path))) < 1000
    assert len(pickle.dumps(PluginRef(path, embed=True))) > 500_000


def test_repr_hides_config() -> None:
    """`repr` shows the plugin and its digest but no config value."""
    ref = PluginRef(ECHO, name="echo", config={"token": SECRET})
    assert repr(ref) == f"<PluginRef 'echo' sha256={sha256(ECHO)[:12]}, config keys=['token']>"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limits": 5}, "limits: expected Limits, got int"),
        ({"wasi": "yes"}, "wasi: expected a name such as"),
        ({"wasi": 2.5}, "wasi: expected True, False or WasiOptions"),
        ({"egress": {"a": 1}}, "egress: expected an Egress, got dict"),
        ({"config": {"a": 1}}, "config: keys must be text"),
        ({"functions": [5]}, "functions: expected host functions or their names, got int"),
        (
            {"functions": ["no colon"]},
            "functions: expected a name such as 'package.module:name', got 'no colon'",
        ),
    ],
)
def test_invalid_setting_is_refused(settings: dict[str, Any], message: str) -> None:
    """An invalid setting is refused where the ref is created."""
    with pytest.raises(plugwasm.OptionError) as caught:
        PluginRef(ECHO, **settings)
    assert message in str(caught.value)


def test_unpicklable_setting_is_refused() -> None:
    """A setting that cannot be pickled is refused where the ref is created."""

    class Local(plugwasm.Clock):
        pass

    with pytest.raises(
        plugwasm.OptionError,
        match=r"wasi: it cannot be pickled .*; put it into a module, and name it",
    ):
        PluginRef(ECHO, wasi=plugwasm.WasiOptions(clock=Local()))


def test_compiled_plugin_is_refused() -> None:
    """A compiled plugin cannot be the source of a ref."""
    with pytest.raises(plugwasm.OptionError, match="made of what a CompiledPlugin was made of"):
        PluginRef(plugwasm.CompiledPlugin(ECHO))  # type: ignore[arg-type]


# What runs is what was pinned


@pytest.mark.parametrize("form", ["path", "text", "bytes", "mapping", "manifest", "file", "toml"])
def test_source_forms(form: str, tmp_path: Path) -> None:
    """A ref can be created from every other source of a plugin."""
    path = tmp_path / "echo.wat"
    path.write_text(ECHO)
    (tmp_path / "plugin.json").write_text(
        json.dumps({"wasm": [{"path": "echo.wat"}], "timeout_ms": 1234})
    )
    plugin: Any = {
        "path": path,
        "text": ECHO,
        "bytes": bytearray(ECHO.encode()),
        "mapping": {"wasm": [{"path": path}]},
        "manifest": plugwasm.Manifest(wasm=[plugwasm.WasmSource(path=str(path))]),
        "file": str(tmp_path / "plugin.json"),
        "toml": f"timeout_ms = 1000\n[[wasm]]\npath = '{path}'\n",
    }[form]
    ref = PluginRef(plugin)
    assert ref.digests == (sha256(ECHO),)
    assert ref.name == ("plugin" if form in ("text", "bytes") else "echo")
    with send_ref(ref).plugin() as running:
        assert running.call("echo", form) == form.encode()
    if form == "file":
        assert running.compiled_plugin.limits.timeout == 1.234


def test_runs_in_other_directory(
    call_elsewhere: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ref runs in a process with another current directory."""
    (tmp_path / "echo.wat").write_text(ECHO)
    monkeypatch.chdir(tmp_path)
    assert call_elsewhere(PluginRef("echo.wat"), "echo", "there") == (0, "there")


def test_grants_in_other_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Granted directories are the same ones in a process with another current directory."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("content")
    monkeypatch.chdir(tmp_path)
    plugin = {
        "wasm": [{"path": str(ROOT / "examples" / "wasi_files.wasm")}],
        "allowed_paths": {"ro:data": "/data"},
    }
    ref = PluginRef(plugin, wasi=True)
    monkeypatch.chdir("/")
    with ref.plugin() as running:
        assert running.call("cat", "/data/file") == b"content"


def test_changed_module_is_not_run(
    call_elsewhere: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """A module that changed after the ref was created is not run."""
    path = tmp_path / "echo.wat"
    path.write_text(ECHO)
    ref = PluginRef(path)
    path.write_text(ECHO + " ")
    status, said = call_elsewhere(ref, "echo", "x")
    assert status == 1
    assert said.startswith(
        f"HashMismatchError: manifest field `wasm[0].hash`: expected {sha256(ECHO)}"
    )


def test_missing_module_names_path(
    call_elsewhere: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """The error for a missing module names the path."""
    path = tmp_path / "echo.wat"
    path.write_text(ECHO)
    ref = PluginRef(path)
    path.unlink()
    status, said = call_elsewhere(ref, "echo", "x")
    assert status == 1
    assert said.startswith(f"SourceError: manifest field `wasm[0]`: no such file: {path}")


def test_embedded_module_needs_no_file(
    call_elsewhere: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """An embedded module needs no file."""
    path = tmp_path / "echo.wat"
    path.write_text(ECHO)
    ref = PluginRef(path, embed=True)
    path.unlink()
    assert ref.name == "echo"
    assert call_elsewhere(ref, "echo", "there") == (0, "there")


def test_pinned_module_is_not_read_early(tmp_path: Path) -> None:
    """A module with a hash in the manifest is not read before it runs."""
    path = tmp_path / "later.wat"
    ref = PluginRef({"wasm": [{"path": str(path), "hash": sha256(ECHO)}]})
    path.write_text(ECHO)
    with ref.plugin() as running:
        assert running.call("echo", "x") == b"x"


def test_embedding_checks_pinned_hash(tmp_path: Path) -> None:
    """A module whose hash differs from the manifest's is not embedded."""
    path = tmp_path / "echo.wat"
    path.write_text(ECHO)
    with pytest.raises(plugwasm.HashMismatchError, match="it is not the module that was pinned"):
        PluginRef({"wasm": [{"path": str(path), "hash": "0" * 64}]}, embed=True)
    with pytest.raises(plugwasm.HashMismatchError, match=r"wasm\[0\]\.hash"):
        PluginRef({"wasm": [{"data": ECHO.encode(), "hash": "0" * 64}]})


def test_url_module_is_pinned_at_creation() -> None:
    """A module from a URL is pinned to what the URL returned first."""
    contents = [ECHO.encode(), ECHO.encode(), COUNT.encode()]

    def module(request: Request, connection: Connection) -> None:
        reply(contents.pop(0))(request, connection)

    with Server({"/echo.wat": module}) as server:
        ref = PluginRef(server.url + "/echo.wat")
        assert ref.name == "echo"
        with ref.plugin() as running:
            assert running.call("echo", "x") == b"x"
        with pytest.raises(plugwasm.HashMismatchError):
            PluginRef(
                {"wasm": [{"url": server.url + "/echo.wat", "hash": sha256(ECHO)}]},
                name="made elsewhere",
            ).compiled()


def test_several_modules_are_pinned(tmp_path: Path) -> None:
    """Each of several modules is pinned."""
    library = '(module (func (export "seven") (result i64) (i64.const 7)))'
    main = guest(
        '(import "library" "seven" (func $seven (result i64)))'
        + export("run", "(call $answer (call $seven))")
    )
    (tmp_path / "library.wat").write_text(library)
    ref = PluginRef(
        {
            "wasm": [
                {"path": str(tmp_path / "library.wat")},
                {"data": main.encode(), "name": "main"},
            ]
        },
        embed=True,
    )
    assert ref.digests == (sha256(library), sha256(main))


# Secrets


def test_secret_is_looked_up_where_it_runs(
    call_elsewhere: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret is looked up where the plugin runs and is nowhere in the pickled ref."""
    monkeypatch.setenv("REF_SECRET", SECRET)
    for ref in (
        PluginRef(CONFIG, config={"secret": FromEnvironment("REF_SECRET")}),
        PluginRef(manifest(CONFIG, config={"secret": FromEnvironment("REF_SECRET")})),
    ):
        assert SECRET.encode() not in pickle.dumps(ref)
        assert SECRET not in repr(ref)
        assert call_elsewhere(ref, "secret", REF_SECRET="another one") == (0, "another one")


def test_missing_secret_is_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error for a missing secret names the setting and the variable."""
    monkeypatch.delenv("REF_SECRET", raising=False)
    ref = PluginRef(CONFIG, config={"secret": FromEnvironment("REF_SECRET")})
    with pytest.raises(
        plugwasm.OptionError,
        match=r"config\.secret: the variable REF_SECRET is not set in this process",
    ) as caught:
        ref.compiled()
    assert caught.value.field == "config.secret"
    monkeypatch.setenv("REF_SECRET", SECRET)
    with ref.plugin() as running:
        assert running.call("secret") == SECRET.encode()


def test_secret_url_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret header of a URL is sent by the process that runs the plugin."""
    monkeypatch.setenv("REF_SECRET", SECRET)
    with Server({"/echo.wat": reply(ECHO.encode())}) as server:
        source = {
            "url": server.url + "/echo.wat",
            "headers": {"Authorization": FromEnvironment("REF_SECRET"), "X-Plain": "plain"},
        }
        ref = PluginRef({"wasm": [source]})
        assert SECRET.encode() not in pickle.dumps(ref)
        monkeypatch.setenv("REF_SECRET", "another one")
        with send_ref(ref).plugin() as running:
            assert running.call("echo", "x") == b"x"
        assert [(r.headers["authorization"], r.headers["x-plain"]) for r in server.requests] == [
            (SECRET, "plain"),
            ("another one", "plain"),
        ]
        embedded = PluginRef({"wasm": [source]}, embed=True)
        assert len(server.requests) == 3
        with embedded.plugin() as running:
            assert running.call("echo", "x") == b"x"
        assert len(server.requests) == 3


def test_config_over_manifest_config() -> None:
    """Config overrides the manifest's, and `None` removes a key."""
    plugin = manifest(CONFIG, config={"secret": "of the manifest", "gone": "x"})
    with PluginRef(plugin, config={"gone": None}).plugin() as running:
        assert running.config == {"secret": "of the manifest"}
    with PluginRef(plugin, config={"secret": "on top"}).plugin() as running:
        assert running.config == {"secret": "on top", "gone": "x"}


@pytest.mark.parametrize("name", ["", "A=B", "A\0", 5])
def test_invalid_variable_name_is_refused(name: Any) -> None:
    """An invalid variable name is refused."""
    with pytest.raises(plugwasm.OptionError, match="expected the name of a variable"):
        FromEnvironment(name)


def test_equal_secrets() -> None:
    """Secrets with equal names are equal."""
    assert FromEnvironment("A") == pickle.loads(pickle.dumps(FromEnvironment("A")))
    assert len({FromEnvironment("A"), FromEnvironment("A"), FromEnvironment("B")}) == 2
    assert repr(FromEnvironment("A")) == "FromEnvironment('A')"


# Host functions, and what else is named


@pytest.mark.parametrize(
    "given", ["function", "decorated", "name", "name of the decorated", "in a class"]
)
def test_host_functions_by_name(
    given: str, host_module: Any, call_elsewhere: Callable[..., tuple[int, str]]
) -> None:
    """Host functions are found by their module and name."""
    function: Any = {
        "function": host_module.twice,
        "decorated": host_module.decorated,
        "name": f"{host_module.__name__}:twice",
        "name of the decorated": f"{host_module.__name__}:decorated",
        "in a class": host_module.Inner.twice,
    }[given]
    ref = PluginRef(HOST, functions=[function])
    with ref.plugin() as running:
        assert number(running.call("run")) == 42
    assert call_elsewhere(ref, "run") == (0, "*" + "\0" * 7)


def test_no_unnamed_host_functions(host_module: Any) -> None:
    """A plugin gets no host functions that its ref does not name."""
    assert host_module.decorated.name == "twice"
    with pytest.raises(plugwasm.MissingImportError):
        PluginRef(HOST).compiled()


def test_unreachable_function_is_refused(host_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions that another process could not import are refused."""

    def twice(a: int) -> int:
        return 2 * a

    for function in (twice, lambda a: a, host_module.made_in):
        with pytest.raises(
            plugwasm.OptionError, match=r"move it to the top of a module|expected a name"
        ):
            PluginRef(HOST, functions=[function])
    monkeypatch.setattr(host_module.twice, "__module__", "__main__")
    with pytest.raises(plugwasm.OptionError, match="`twice` is defined in `__main__`"):
        PluginRef(HOST, functions=[host_module.twice])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module_77:f", "cannot import `no_such_module_77:f`"),
        ("os:no_such", "cannot import `os:no_such`"),
        ("sys:path", "is no function, but list"),
    ],
)
def test_unknown_name_is_error_where_it_runs(name: str, message: str) -> None:
    """A name that cannot be imported is an error where the plugin runs."""
    with pytest.raises(plugwasm.OptionError, match=message):
        PluginRef(HOST, functions=[name]).compiled()


def test_egress_and_wasi_can_be_named(host_module: Any) -> None:
    ref = PluginRef(
        ECHO, egress=f"{host_module.__name__}:policy", wasi=f"{host_module.__name__}:options"
    )
    compiled = send_ref(ref).compiled()
    assert compiled.egress is host_module.policy
    assert compiled.wasi is host_module.options
    with pytest.raises(plugwasm.OptionError, match="egress: expected an Egress, got int"):
        PluginRef(ECHO, egress=f"{host_module.__name__}:answer").compiled()


def test_egress_and_wasi_can_travel() -> None:
    egress = plugwasm.Egress(allowed_hosts=["example.com"], max_redirects=3)
    compiled = send_ref(
        PluginRef(ECHO, egress=egress, wasi=plugwasm.WasiOptions(clock=plugwasm.FrozenClock(5)))
    ).compiled()
    assert compiled.egress is not None
    assert compiled.egress.max_redirects == 3
    assert isinstance(compiled.wasi, plugwasm.WasiOptions)
    assert compiled.wasi.clock.realtime() == 5


def test_limits_and_fuel_hold() -> None:
    """Limits and fuel apply where the plugin runs."""
    with (
        send_ref(PluginRef(LOOP, limits=plugwasm.Limits(timeout=0.05))).plugin() as running,
        pytest.raises(plugwasm.TimeoutError),
    ):
        running.call("loop")
    with (
        send_ref(PluginRef(LOOP, fuel_limit=1000)).plugin() as running,
        pytest.raises(plugwasm.OutOfFuelError),
    ):
        running.call("loop")


# Once in a process


def test_equal_refs_share_compiled_plugin() -> None:
    """Equal refs share one compiled plugin, and each plugin is separate."""
    ref = PluginRef(COUNT)
    assert send_ref(ref).compiled() is ref.compiled()
    assert PluginRef(COUNT).compiled() is ref.compiled()
    with ref.plugin() as one, ref.plugin() as other:
        assert [number(plugin.call("count")) for plugin in (one, one, other)] == [1, 2, 1]


def test_threads_compile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that use a ref at once compile it once."""
    ref = PluginRef(COUNT, name="for many threads")
    made = []
    compile = PluginRef._compile
    monkeypatch.setattr(PluginRef, "_compile", lambda self: made.append(1) or compile(self))
    barrier = threading.Barrier(8)

    def run() -> plugwasm.CompiledPlugin:
        barrier.wait(10)
        return send_ref(ref).compiled()

    threads = [InThread(run) for _ in range(8)]
    assert len({id(thread.result()) for thread in threads}) == 1
    assert made == [1]


def test_failed_compile_is_retried(tmp_path: Path) -> None:
    """A failed compilation is tried again."""
    path = tmp_path / "echo.wat"
    ref = PluginRef({"wasm": [{"path": str(path), "hash": sha256(ECHO)}]})
    with pytest.raises(plugwasm.SourceError):
        ref.compiled()
    path.write_text(ECHO)
    assert ref.compiled() is ref.compiled()


def test_a_process_keeps_only_so_many() -> None:
    for index in range(ref_module.MAX_CACHED + 8):
        PluginRef(ECHO, name=f"number {index}").compiled()
    assert len(ref_module._cache) == ref_module.MAX_CACHED


def test_forked_child_uses_parent_compile() -> None:
    """A forked child uses what its parent compiled, also if a thread was about to compile."""
    ref = PluginRef(COUNT, name="before the fork")
    kept = ref.compiled()
    busy = PluginRef(COUNT, name="busy in another thread")
    slot = ref_module._cache.setdefault(busy, ref_module._CacheEntry())
    locked, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with slot.lock:
            locked.set()
            go_on.wait(30)

    thread = InThread(hold)
    locked.wait(30)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def child() -> None:
        with busy.plugin() as plugin:
            answers.put((ref.compiled() is kept, number(plugin.call("count"))))

    process = context.Process(target=child)
    try:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
            process.start()
        process.join(30)
        assert process.exitcode == 0
        assert answers.get() == (True, 1)
    finally:
        process.kill()
        go_on.set()
        thread.result()


def test_isolated_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ref creates isolated plugins and compiles nothing in this process."""
    ref = send_ref(PluginRef(CONFIG, config={"secret": FromEnvironment("SECRET_OF_TEST")}))
    monkeypatch.setenv("SECRET_OF_TEST", SECRET)
    monkeypatch.setattr("plugwasm._runtime.compiled_plugin.find_or_make_plan", None)
    with ref.plugin(isolated=plugwasm.ProcessLimits(memory_bytes=2**29)) as plugin:
        assert isinstance(plugin, plugwasm.IsolatedPlugin)
        assert plugin.call("secret") == SECRET.encode()
    with ref.plugin(isolated=True) as plugin:
        assert plugin.call("secret") == SECRET.encode()
    with pytest.raises(
        plugwasm.OptionError, match="isolated: expected True, False or ProcessLimits"
    ):
        ref.plugin(isolated="yes")  # type: ignore[arg-type]
