"""Plugins whose modules have separate stores: only numbers pass between stores.

A command (it exports `_start`) that imports only functions has its own store for each call. Its
imports and its callers live in the plugin's store or in another command's.
"""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

import plugwasm
from plugwasm._engine import Engine, EngineFailure, FunctionType
from tests.support.guests import manifest

WASI = "wasi_snapshot_preview1"
CLOCK = f'(import "{WASI}" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))'
NOW = "(drop (call $clock (i32.const 1) (i64.const 0) (i32.const 64)))"
"""Writes the time, which is never zero, at offset 64 of the memory of the instance that calls."""
WROTE = "(i64.ne (i64.load (i32.const 64)) (i64.const 0))"
COMMAND = '(func (export "_start"))'


def modules(**texts: str) -> dict[str, object]:
    return manifest(*((name, f"(module {text})") for name, text in texts.items()))


def run_program(program: str, timeout: float = 60) -> str:
    """Run a program in another process, which must succeed, and return its output."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


# ---- references ----------------------------------------------------------------------------------

KEEPER = """(type $t (func (result i32))) (table $kept 1 funcref)
    (func (export "keep") (param funcref) (table.set $kept (i32.const 0) (local.get 0)))
    (func (export "kept") (result funcref) (table.get $kept (i32.const 0)))
    (func (export "use") (result i32) (call_indirect $kept (type $t) (i32.const 0)))"""


def test_reactor_cannot_keep_command_function() -> None:
    """A reactor cannot keep a command's function.

    The function would be freed with the command's store while the reactor's table still refers to
    it.
    """
    plugin = modules(
        reactor=KEEPER,
        apart=f"""(import "reactor" "keep" (func $keep (param funcref))) (func $own (result i32) (i32.const 7))
            (elem declare func $own) {COMMAND} (func (export "run") (call $keep (ref.func $own)))""",
        main="""(import "apart" "run" (func $run)) (import "reactor" "use" (func $use (result i32)))
            (func (export "f") (result i32) (call $run) (call $use))""",
    )
    with pytest.raises(
        plugwasm.LinkError,
        match=r"module `apart` imports function reactor.keep\(funcref\) -> \(\).*only values of type i32",
    ):
        plugwasm.Plugin(plugin)


@pytest.mark.parametrize(
    "type", ["funcref", "externref", "v128", "exnref", "(ref null $t)", "(ref $t)", "nullfuncref"]
)
@pytest.mark.parametrize("place", ["param", "result"])
@pytest.mark.parametrize("way", ["into the command", "out of the command"])
def test_only_numbers_pass(type: str, place: str, way: str) -> None:
    """Only numbers pass between stores."""
    declared = f'(type $t (func)) (func $it (import "{{module}}" "it") ({place} {type}))'
    has_it = f'(type $t (func)) (func (export "it") ({place} {type}) unreachable)'
    uses = '(func (export "f"))'
    if way == "into the command":
        plugin = modules(apart=f"{has_it} {COMMAND}", main=declared.format(module="apart") + uses)
    else:
        plugin = modules(
            reactor=has_it,
            apart=f'{declared.format(module="reactor")} {COMMAND} (func (export "run"))',
            main=f'(import "apart" "run" (func)) {uses}',
        )
    with pytest.raises(plugwasm.Error) as caught:
        plugwasm.Plugin(plugin)
    if isinstance(caught.value, plugwasm.ModuleError):
        assert (
            "GC" in str(caught.value)
            or "gc" in str(caught.value)
            or "proposal" in str(caught.value)
            or "support" in str(caught.value)
        )
    else:
        assert type in ("funcref", "externref", "v128", "exnref", "(ref null $t)", "(ref $t)")
        assert isinstance(caught.value, plugwasm.LinkError)
        assert "only values of type i32, i64, f32 and f64" in str(caught.value)


def test_references_between_commands() -> None:
    """A reference passes between commands no more than to a reactor."""
    plugin = modules(
        inner=f'{COMMAND} (func (export "take") (param funcref))',
        outer=f"""(import "inner" "take" (func $take (param funcref))) (func $own) (elem declare func $own)
            {COMMAND} (func (export "run") (call $take (ref.func $own)))""",
        main='(import "outer" "run" (func $run)) (func (export "f") (call $run))',
    )
    with pytest.raises(plugwasm.LinkError, match="only values of type i32"):
        plugwasm.Plugin(plugin)


def test_numbers_of_every_type() -> None:
    """Numbers of every type pass in both directions, bit by bit: NaNs with payloads, negative and
    large ones.

    With every bit: NaNs with payloads, negative and large ones.
    """
    signature = "(param i32 i64 f32 f64) (result f64 f32 i64 i32)"
    back = "(local.get 3) (local.get 2) (local.get 1) (local.get 0)"
    plugin = modules(
        reactor=f'(func (export "swap") {signature} {back})',
        apart=f"""(import "reactor" "swap" (func $swap {signature})) {COMMAND}
            (func (export "swap") {signature} (call $swap (local.get 0) (local.get 1) (local.get 2) (local.get 3)))""",
        main=f"""(import "apart" "swap" (func $swap {signature}))
            (func (export "f") (result i32) (local $a i32) (local $b i64) (local $c f32) (local $d f64)
              (call $swap (i32.const -2) (i64.const -3) (f32.const nan:0x1234) (f64.const -nan:0x123456789))
              local.set $a local.set $b local.set $c local.set $d
              (i32.or (i32.or (i32.ne (local.get $a) (i32.const -2)) (i64.ne (local.get $b) (i64.const -3)))
                      (i32.or (i32.ne (i32.reinterpret_f32 (local.get $c)) (i32.const 0x7f801234))
                              (i64.ne (i64.reinterpret_f64 (local.get $d)) (i64.const 0xfff0000123456789)))))""",
    )
    assert plugwasm.Plugin(plugin).call("f") == b""


def test_reference_within_plugin_store() -> None:
    """A reference to a command in the plugin's own store can be kept.

    A command that imports a table as well lives there until the plugin's instance ends, so a
    reactor can keep its functions.
    """
    plugin = modules(
        reactor=KEEPER.replace(
            "(table $kept 1 funcref)", '(table $kept (export "table") 1 funcref)'
        ),
        here=f"""(import "reactor" "keep" (func $keep (param funcref))) (import "reactor" "table" (table 1 funcref))
            (func $own (result i32) (i32.const 0)) (elem declare func $own)
            {COMMAND} (func (export "run") (call $keep (ref.func $own)))""",
        main="""(import "here" "run" (func $run)) (import "reactor" "use" (func $use (result i32)))
            (func (export "f") (result i32) (call $run) (call $use))""",
    )
    assert plugwasm.Plugin(plugin).call("f") == b""


def test_unsupported_type_is_no_key_error() -> None:
    """A type that cannot be passed is one of our errors, not a KeyError."""
    engine = Engine()
    for name in ("v128", "reference", "exnref"):
        with pytest.raises(EngineFailure, match=f"a value of type {name} cannot be passed"):
            FunctionType((name,), ()).pointer(engine)


# ---- whose memory --------------------------------------------------------------------------------


def test_wasi_memory_of_caller() -> None:
    """A WASI call uses the memory of its caller, in whatever store that is.

    A command with its own store calls a reactor, which calls a command that lives in the plugin's
    store, which calls WASI.
    """
    plugin = modules(
        holder='(global (export "global") i32 (i32.const 0))',
        here=f"""(import "holder" "global" (global i32)) {CLOCK} (memory (export "memory") 1)
            {COMMAND} (func (export "run") (result i32) {NOW} {WROTE})""",
        reactor='(import "here" "run" (func $run (result i32))) (func (export "pass") (result i32) (call $run))',
        apart=f"""(import "reactor" "pass" (func $pass (result i32))) (memory (export "memory") 1) {COMMAND}
            (func (export "run") (result i32) (i32.add (i32.mul (call $pass) (i32.const 2)) {WROTE}))""",
        main='(import "apart" "run" (func $run (result i32))) (func (export "f") (result i32) (i32.sub (call $run) (i32.const 2)))',
    )
    with plugwasm.Plugin(plugin, wasi=True) as made:
        for _ in range(3):
            assert made.call("f") == b""


def test_wasi_reexported_by_library() -> None:
    """A WASI function that a library re-exports writes to the memory of its caller."""
    plugin = modules(
        library=f"""{CLOCK} (export "clock" (func $clock)) (memory (export "memory") 1)
            (func (export "touch") {NOW} (i64.store (i32.const 64) (i64.const 0)))
            (func (export "wrote") (result i32) {WROTE})""",
        main=f"""(import "library" "clock" (func $clock (param i32 i64 i32) (result i32))) (import "library" "touch" (func $touch))
            (import "library" "wrote" (func $wrote (result i32))) (memory (export "memory") 1)
            (func (export "f") (result i32) (call $touch) {NOW} (i32.add (i32.mul (call $wrote) (i32.const 2)) (i32.eqz {WROTE})))""",
    )
    assert plugwasm.Plugin(plugin, wasi=True).call("f") == b""


def test_wasi_function_in_table() -> None:
    """A WASI function in a table writes to the memory of its caller."""
    plugin = modules(
        library=f"""{CLOCK} (table (export "table") 1 funcref) (elem (i32.const 0) $clock) (memory (export "memory") 1)
            (func (export "wrote") (result i32) {NOW} (i64.store (i32.const 64) (i64.const 0)) (i32.const 0))
            (func (export "later") (result i32) {WROTE})""",
        main=f"""(type $clock (func (param i32 i64 i32) (result i32))) (import "library" "table" (table $table 1 funcref))
            (import "library" "wrote" (func $wrote (result i32))) (import "library" "later" (func $later (result i32)))
            (memory (export "memory") 1)
            (func (export "f") (result i32) (drop (call $wrote))
              (drop (call_indirect $table (type $clock) (i32.const 1) (i64.const 0) (i32.const 64) (i32.const 0)))
              (i32.add (i32.mul (call $later) (i32.const 2)) (i32.eqz {WROTE})))""",
    )
    assert plugwasm.Plugin(plugin, wasi=True).call("f") == b""


def test_wasi_function_called_by_name() -> None:
    """Calling a WASI function by name does not determine whose memory WASI uses.

    The kernel is then the caller, and its memory is not the plugin's.
    """
    plugin = modules(
        main=f"""(import "{WASI}" "sched_yield" (func $yield (result i32))) (export "yield" (func $yield)) {CLOCK}
            (memory (export "memory") 1) (func (export "f") (result i32) {NOW} (i32.eqz {WROTE}))"""
    )
    with plugwasm.Plugin(plugin, wasi=True) as made:
        made.call("yield")
        assert made.call("f") == b""


def test_wasi_caller_without_memory() -> None:
    """A caller without a memory gets an error number, whatever memories others have."""
    plugin = modules(
        library=f'{CLOCK} (export "clock" (func $clock)) (memory (export "memory") 1) (func (export "touch") {NOW})',
        main="""(import "library" "clock" (func $clock (param i32 i64 i32) (result i32))) (import "library" "touch" (func $touch))
            (func (export "f") (result i32) (call $touch)
              (i32.sub (call $clock (i32.const 1) (i64.const 0) (i32.const 64)) (i32.const 21)))""",
    )
    assert plugwasm.Plugin(plugin, wasi=True).call("f") == b""  # 21: EFAULT


def test_command_memory_is_released() -> None:
    """The memory of a command is released with its store."""
    plugin = modules(
        apart=f'{CLOCK} (memory (export "memory") 1) {COMMAND} (func (export "run") (result i32) {NOW} (i32.eqz {WROTE}))',
        main='(import "apart" "run" (func $run (result i32))) (func (export "f") (result i32) (call $run))',
    )
    with plugwasm.Plugin(plugin, wasi=True) as made:
        for _ in range(50):
            assert made.call("f") == b""
        assert made._guest is not None
        assert made._guest.memories == {}


# ---- fuel ----------------------------------------------------------------------------------------

BURN = """(func $burn (param $rounds i32) (loop $again
    (br_if $again (local.tee $rounds (i32.sub (local.get $rounds) (i32.const 1))))))"""


def test_fuel_is_spent_once() -> None:
    """Fuel is spent once, in whatever store.

    A command that calls back into the plugin's store spends fuel there too, each time.
    """
    plugin = modules(
        reactor=f'{BURN} (export "burn" (func $burn))',
        apart=f"""(import "reactor" "burn" (func $burn (param i32))) {COMMAND}
            (func (export "run") (call $burn (i32.const 1000)))""",
        main="""(import "apart" "run" (func $run))
            (func (export "f") (local $i i32) (loop $again (call $run)
              (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100)))))
            (func (export "once") (call $run))""",
    )
    with plugwasm.Plugin(plugin, fuel_limit=50_000) as made:
        made.call("once")
        assert made.fuel_used is not None
        assert made.fuel_used > 4_000
        with pytest.raises(plugwasm.OutOfFuelError):
            made.call("f")
        assert made.fuel_used == 50_000


def test_fuel_of_commands_in_plugin_store() -> None:
    """The fuel of commands in the plugin's own store counts once."""
    plugin = modules(
        holder='(global (export "global") i32 (i32.const 0))',
        here=f'(import "holder" "global" (global i32)) {BURN} {COMMAND} (func (export "run") (call $burn (i32.const 1000)))',
        reactor='(import "here" "run" (func $run)) (func (export "pass") (call $run))',
        apart=f'(import "reactor" "pass" (func $pass)) {COMMAND} (func (export "run") (call $pass))',
        main='(import "apart" "run" (func $run)) (func (export "f") (call $run) (call $run))',
    )
    with plugwasm.Plugin(plugin, fuel_limit=50_000) as made:
        made.call("f")
        assert made.fuel_used is not None
        assert 8_000 < made.fuel_used < 20_000


# ---- callbacks -----------------------------------------------------------------------------------


IN_THREADS = """
import gc, sys, threading
import plugwasm
def first_used_by_threads(compiled):
    start = threading.Barrier(4)
    def use():
        plugin = plugwasm.Plugin(compiled)
        start.wait()
        for _ in range(5):
            plugin.call("f")
            gc.collect()
    threads = [threading.Thread(target=use) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
"""


def test_command_imports_made_before_threads() -> None:
    """A command's imports are created before threads call it.

    Four threads call a command for the first time. Otherwise each would create the shared imports
    and free those that others still use.
    """
    program = """
N = 300
functions = "".join(f'(func (export "f{i}"))' for i in range(N))
imports = "".join(f'(import "reactor" "f{i}" (func $f{i}))' for i in range(N))
calls = "".join(f"(call $f{i})" for i in range(N))
def manifest(*modules):
    return {"wasm": [{"name": name, "data": text.encode()} for name, text in modules]}

made = manifest(("reactor", f"(module {functions})"),
    ("apart", f'(module {imports} (func (export "_start")) (func (export "run") {calls}))'),
    ("main", '(module (import "apart" "run" (func $run)) (func (export "f") (call $run)))'))
for _ in range(4):
    compiled = plugwasm.CompiledPlugin(made)
    first_used_by_threads(compiled)
print("well")
"""
    assert run_program(IN_THREADS + program) == "well\n"


def test_threads_start_observed_plugins() -> None:
    """Observed plugins that threads start at once keep the callbacks that they import alive."""
    program = """
import threading, gc, sys
import plugwasm
from plugwasm._wasi.preview1 import SIGNATURES
sys.setswitchinterval(1e-5)
imports = "".join(
    f'(import "wasi_snapshot_preview1" "{name}" (func ${name} (param {" ".join(p)}) {"" if name == "proc_exit" else "(result i32)"}))'
    for name, p in SIGNATURES.items())
wat = f'(module {imports} (memory (export "memory") 1) (func (export "f") (drop (call $sched_yield)) (drop (call $random_get (i32.const 0) (i32.const 8)))))'
for round in range(10):
    compiled = plugwasm.CompiledPlugin(wat.encode(), wasi=True, observe=True)
    first_used_by_threads(compiled)
print("well")
"""
    assert run_program(IN_THREADS + program) == "well\n"


def test_store_holds_host_functions() -> None:
    """A store keeps the host functions that were imported into it alive, whatever else drops them.

    Whoever else lets go of them.
    """

    @plugwasm.host_fn(namespace="test:stores")
    def noted() -> int:
        return 7

    wat = '(module (import "test:stores" "noted" (func $noted (result i64))) (func (export "f") (result i32) (i32.wrap_i64 (call $noted))))'
    with plugwasm.Plugin(wat.encode(), functions=[noted]) as plugin:
        with pytest.raises(plugwasm.GuestError) as caught:
            plugin.call("f")
        assert caught.value.code == 7
        store = plugin._guest.store  # type: ignore[union-attr]
        assert noted._host in store._binding._held
    assert noted._host in store._binding._held


def test_pool_plan_made_by_one_thread() -> None:
    """The plan for the pool is made by one thread."""
    wat = '(module (memory (export "memory") 1) (func (export "f")))'
    links = []

    class Counted(plugwasm.CompiledPlugin):
        __slots__ = ()

        def _link(self, *, pooled: bool) -> object:  # type: ignore[override]
            links.append(pooled)
            return super()._link(pooled=pooled)

    compiled = Counted(wat.encode())
    start = threading.Barrier(8)

    def use() -> None:
        start.wait()
        for _ in range(5):
            compiled._plan_for_start()

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert links == [False, True]


def test_command_host_functions_made_once() -> None:
    """A command in the plugin's own store creates its host functions once.

    They stay in that store, so one for each call and import would be memory that no limit counts.
    """
    plugin = modules(
        holder='(global (export "global") i32 (i32.const 0))',
        here=f"""(import "holder" "global" (global i32)) {CLOCK} (memory (export "memory") 1)
            {COMMAND} (func (export "run") {NOW})""",
        main='(import "here" "run" (func $run)) (func (export "f") (call $run))',
    )
    with plugwasm.Plugin(plugin, wasi=True) as made:
        made.call("f")
        assert made._guest is not None
        before = len(made._guest.externs)
        for _ in range(4):
            made.call("f")
        assert len(made._guest.externs) == before


# ---- stacks that cannot be looked at -------------------------------------------------------------


def test_unknown_stack_has_no_room() -> None:
    """A stack whose end is unknown is not treated as unlimited.

    With no descriptor left, the system does not say where the main thread's stack ends. That is
    reported, and queried again later.
    """
    program = """
import os, resource
import plugwasm
import plugwasm._runtime.plugin, plugwasm.errors, plugwasm._runtime.call_errors
plugwasm.Plugin, plugwasm.StackError, plugwasm.TrapError  # imported when they are named first
from plugwasm._host import kernel as _kernel; from plugwasm._runtime import modules as _code
_kernel.read_source()
wat = b'(module (func $r (export "f") (call $r)))'
_code.get_engine(pooled=False)  # whose making measures the thread, in a state where that works
from plugwasm._engine import ThreadStack
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
_code._engines.clear()
try:
    plugwasm.Plugin(wat)
except plugwasm.StackError as error:
    told = error.message
for fd in taken:
    os.close(fd)
print(told)
plugin = plugwasm.Plugin(wat)
try:
    plugin.call("f")
except plugwasm.TrapError as error:
    print(error.trap)
stack = plugin.compiled_plugin._plan.engine.stack
print(0 < stack.measurement.call_depth < 100, stack.room() < 2**40)
"""
    lines = run_program(program).splitlines()
    assert "cannot be found out" in lines[0]
    assert lines[1:] == ["stack overflow", "True True"]


@pytest.mark.parametrize("count", [60, 150, 200, 255])
def test_long_command_chain_is_trap(count: int) -> None:
    """A chain of commands too long for the stack is a trap.

    Each call of a command is made by a host function inside the call before it.
    """
    first = f'{COMMAND} (func (export "f") (result i32) (i32.const 0))'
    rest = [
        f'(import "m{i}" "f" (func $f (result i32))) {COMMAND} (func (export "f") (result i32) (call $f))'
        for i in range(count)
    ]
    with plugwasm.Plugin(
        modules(**{f"m{i}": text for i, text in enumerate([first, *rest])})
    ) as plugin:
        for _ in range(2):
            try:
                assert plugin.call("f") == b""
            except plugwasm.TrapError as error:
                assert error.trap == "stack overflow"
