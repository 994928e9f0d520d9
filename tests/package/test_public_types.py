"""Types in public signatures are public themselves: exported by a public module, which is also what
`__module__` and pickles name."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import pickle
import pickletools
import re
import sys
import typing
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import plugwasm
from plugwasm import _PUBLIC_MODULES, codecs, debugging, observing, plugin_set, recording, testing
from plugwasm.observing import HttpExchange
from tests.support.paths import ROOT

MODULES = [plugwasm, *(importlib.import_module(f"plugwasm.{name}") for name in _PUBLIC_MODULES)]

ONLY_FOR_PLUGWASM = {
    *("Admitted.__init__", "Admitted.copy", "AsyncOutputs.__init__", "CancelHandle.__init__"),
    "CurrentPlugin.__init__",
    *("EgressRequest.__init__", "FunctionType.pointer", "Lease.__init__"),
    *("ManifestPolicy.granted", "debugging.Dumper.__init__"),
}
"""Members of public classes that no documentation names: plugwasm calls them, with its own types."""

SPECIAL = {
    "__init__",
    "__call__",
    "__enter__",
    "__aenter__",
    "__iter__",
    "__aiter__",
    "__getitem__",
}


@functools.cache
def checking_names(module: ModuleType) -> dict[str, Any]:
    """Return the names of a module, with those that only type checkers see."""
    names = dict(vars(module))
    for block in ast.parse(inspect.getsource(module)).body:
        if not (isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"):
            continue
        for statement in block.body:
            if isinstance(statement, ast.ImportFrom):
                path = "." * statement.level + (statement.module or "")
                source = importlib.import_module(path, module.__package__)
                for alias in statement.names:
                    names[alias.asname or alias.name] = member(source, alias.name)
            else:
                exec(compile(ast.Module([statement], []), str(module.__file__), "exec"), names)
    return names


def member(module: ModuleType, name: str) -> Any:
    if hasattr(module, name):
        return getattr(module, name)
    names = checking_names(module) if module.__name__.startswith("plugwasm") else {}
    return names[name] if name in names else importlib.import_module(f"{module.__name__}.{name}")


def annotations(subject: Any, module: ModuleType) -> dict[str, Any]:
    return typing.get_type_hints(subject, globalns=checking_names(module))


def classes(annotation: Any) -> Iterator[type]:
    """Yield the classes that an annotation consists of."""
    if isinstance(annotation, list):
        for part in annotation:
            yield from classes(part)
    elif isinstance(annotation, typing.TypeVar):
        for part in (annotation.__bound__, *annotation.__constraints__):
            yield from classes(part)
    else:
        yield from classes(list(typing.get_args(annotation)))
        found = typing.get_origin(annotation) or annotation
        if inspect.isclass(found):
            yield found


def bases(owner: type) -> list[type]:
    return [base for base in owner.__mro__ if base.__module__.partition(".")[0] == "plugwasm"]


def functions(owner: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the public methods and properties of a class, with those of plugwasm's bases."""
    for base in bases(owner):
        for name, value in vars(base).items():
            if isinstance(value, (staticmethod, classmethod)):
                value = value.__func__
            elif isinstance(value, property):
                value = value.fget
            if inspect.isfunction(value) and (not name.startswith("_") or name in SPECIAL):
                yield name, value


@functools.cache
def definition(value: type | Callable[..., Any]) -> ModuleType:
    """Return the module that defines a class or a function, whatever its `__module__` is."""
    if not inspect.isclass(value):
        return sys.modules[inspect.unwrap(value).__globals__["__name__"]]
    return next(
        module
        for name, module in list(sys.modules.items())
        if name.startswith("plugwasm")
        and vars(module).get(value.__name__) is value
        and re.search(rf"^ *class {value.__name__}\b", inspect.getsource(module), re.M)
    )


def signatures(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the annotations of a class or a function, each with the name of what has it."""
    if inspect.isclass(value):
        for inner, function in functions(value):
            yield from signatures(f"{name}.{inner}", function)
        for base in bases(value):
            own = inspect.get_annotations(base).items()
            public = SimpleNamespace(__annotations__={a: t for a, t in own if a[0] != "_"})
            for attribute, annotation in annotations(public, definition(base)).items():
                yield f"{name}.{attribute}", annotation
    elif inspect.isfunction(value):
        module = definition(value)
        checking_names(module)  # overloads are among them
        for one in (value, *typing.get_overloads(value)):
            if definition(one).__name__.startswith("plugwasm"):
                yield from ((name, found) for found in annotations(one, module).values())


def exported_names() -> dict[str, Any]:
    return {
        f"{module.__name__}.{name}": getattr(module, name)
        for module in MODULES
        for name in module.__all__
    }


def test_types_in_public_signatures_are_public() -> None:
    """From each public name along the annotations: every class of plugwasm is exported, too."""
    public = exported_names()
    known = {id(value) for value in public.values()}
    todo = list(public.items())
    seen: set[type] = set()
    private: dict[str, set[str]] = {}
    while todo:
        name, value = todo.pop()
        for place, annotation in signatures(name, value):
            for found in classes(annotation):
                if found.__module__.partition(".")[0] != "plugwasm" or found in seen:
                    continue
                if id(found) in known:
                    seen.add(found)
                    todo.append((f"{found.__module__}.{found.__qualname__}", found))
                else:
                    private.setdefault(place, set()).add(found.__qualname__)
    expected = {f"plugwasm.{name}" for name in ONLY_FOR_PLUGWASM}
    assert {place: types for place, types in private.items() if place not in expected} == {}
    assert expected <= private.keys(), "these need no exception any more"


FILE = str(ROOT / "examples" / "count_vowels.wasm")


def make_recording() -> recording.Recording:
    recorder = recording.Recorder()
    with plugwasm.Plugin(FILE, functions=[], observe=recorder) as plugin:
        plugin.call("count_vowels", b"a")
    return recorder.recording


def values() -> Iterator[Any]:
    """Yield a value of each public class that can be pickled."""
    yield from (plugwasm.Limits(), plugwasm.ProcessLimits(), plugwasm.Egress())
    yield plugwasm.HttpTransport()
    yield plugwasm.EgressResponse(200)
    yield plugwasm.WasiOptions(clock=plugwasm.CoarseClock(10), random=plugwasm.SeededRandom(1))
    yield plugwasm.FrozenClock(0)
    yield plugwasm.Manifest.parse({"wasm": [{"path": FILE}], "memory": {"max_pages": 1}})
    yield plugwasm.ManifestPolicy(limits=plugwasm.Limits())
    yield plugwasm.PluginRef(FILE, functions=[])
    yield plugwasm.MapBatches(plugwasm.PluginRef(FILE), "count_vowels", column="text")
    yield plugwasm.FromEnvironment("A")
    yield plugwasm.ValType.I64
    yield plugwasm.PoolStats(1, 0, 0, 0, 0, 0)
    compiled = plugwasm.CompiledPlugin(FILE, functions=[])
    yield from (*compiled.exports, *compiled.imports)
    yield from (codecs.JSON, codecs.MSGPACK, codecs.RAW)
    yield debugging.Backtrace([debugging.Frame("f")])
    yield debugging.Dump("core", ())
    yield debugging.FunctionTime("f", 0.0, 0.0)
    yield observing.Call("p", "f", b"")
    yield HttpExchange("GET", "https://example.com/", 200)
    yield plugin_set.Changes()
    yield plugin_set.Result("p", 1, None)
    yield plugin_set.Setting()
    yield plugin_set.Description(
        name="", title="", source="", enabled=True, loaded=True, grants=plugin_set.Grants()
    )
    made = make_recording()
    yield made
    yield made.replay()
    block = recording.Value(block=0)
    data = recording.Data(text="")
    effects = (
        *(recording.Alloc(1), recording.Put(data), recording.Free(block)),
        *(recording.Write(block, data), recording.SetError(block), recording.SetVar("a", data)),
    )
    yield recording.HostCall(
        "f", effects=effects, http=recording.HttpStatus(), error=recording.Failure("E")
    )
    yield testing.LogLine("info", "")
    yield testing.Request("GET", "", {}, b"")
    yield testing.HostCall("", "", ())
    for name in plugwasm.errors.__all__:
        yield getattr(plugwasm.errors, name)("message")


def test_pickles_name_public_modules() -> None:
    """Protocol 2 writes the module and the name of a class or a function in one operation."""
    for value in values():
        operations = pickletools.genops(pickle.dumps(value, 2))
        named = [str(argument) for op, argument, _ in operations if op.name == "GLOBAL"]
        ours = [path.partition(" ")[0] for path in named if path.startswith("plugwasm")]
        assert ours, value
        assert not [module for module in ours if "._" in module], value
        assert type(pickle.loads(pickle.dumps(value))) is type(value)
