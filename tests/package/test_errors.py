"""The tree of errors: the fields of each, and that all of them can be pickled."""

from __future__ import annotations

import builtins
import copy
import importlib
import itertools
import pickle
import pkgutil
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

import plugwasm
from plugwasm import Plugin, errors
from plugwasm._project.problems import ProjectError
from tests.support.faulty_guest import FAULTY
from tests.support.guests import export, guest, manifest

TREE: dict[str, tuple[type, ...]] = {
    "EngineError": (errors.Error,),
    "OptionError": (errors.Error, ValueError),
    "ManifestError": (errors.Error, ValueError),
    "SchemaError": (errors.Error, ValueError),
    "HashMismatchError": (errors.ManifestError,),
    "SourceError": (errors.Error,),
    "ModuleError": (errors.Error,),
    "ScriptError": (errors.ModuleError,),
    "LinkError": (errors.Error,),
    "MissingImportError": (errors.LinkError,),
    "InterfaceError": (errors.LinkError,),
    "ClosedError": (errors.Error,),
    "BusyError": (errors.Error,),
    "PoolTimeoutError": (errors.BusyError, builtins.TimeoutError),
    "EgressError": (errors.Error,),
    "EgressDeniedError": (errors.EgressError,),
    "RecordingError": (errors.Error,),
    "ReplayError": (errors.Error, AssertionError),
    "BatchError": (errors.Error,),
    "RowError": (errors.BatchError,),
    "CallError": (errors.Error,),
    "FunctionNotFoundError": (errors.CallError,),
    "SignatureError": (errors.CallError,),
    "GuestError": (errors.CallError,),
    "OutputError": (errors.CallError,),
    "ExitError": (errors.CallError,),
    "TrapError": (errors.CallError,),
    "BadHandleError": (errors.CallError,),
    "HostFunctionError": (errors.CallError,),
    "TimeoutError": (errors.CallError, builtins.TimeoutError),
    "CancelledError": (errors.CallError,),
    "OutOfMemoryError": (errors.CallError, MemoryError),
    "StackError": (errors.CallError,),
    "InstanceLostError": (errors.CallError,),
    "WorkerError": (errors.CallError,),
    "OutOfFuelError": (errors.CallError,),
}


def tree(cls: type[errors.Error] = errors.Error) -> list[type[errors.Error]]:
    """Return the class and its subclasses, in plugwasm's error module and in others."""
    return list(
        dict.fromkeys([cls, *(other for child in cls.__subclasses__() for other in tree(child))])
    )


for _module in pkgutil.walk_packages(plugwasm.__path__, "plugwasm."):
    if not _module.name.endswith("__main__"):
        importlib.import_module(_module.name)
CLASSES = [cls for cls in tree() if cls.__module__.startswith("plugwasm.")]
of_each_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def test_error_tree_is_public() -> None:
    """The tree has exactly these classes, all of them public."""
    assert {
        cls.__name__: cls.__bases__ for cls in CLASSES if cls.__module__ == "plugwasm.errors"
    } == TREE | {"Error": (Exception,)}
    assert sorted([*TREE, "Error"]) == sorted(errors.__all__)
    for name in errors.__all__:
        assert getattr(plugwasm, name) is getattr(errors, name)


def test_error_tree_is_documented() -> None:
    """The documented tree is the actual one."""
    above: list[str] = []
    documented: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ((?:│   |    )*(?:[├└]── )?)(\w*Error)(?: +(\S.*))?$", line):
            depth = len(found[1]) // 4
            above[depth:] = [found[2]]
            assert depth == 0 or found[3], line
            for builtin in (builtins.TimeoutError, ValueError, MemoryError):
                said = f"also a built-in ``{builtin.__name__}``" in line
                assert said == (builtin in getattr(errors, found[2]).__bases__), line
            if depth:
                documented[found[2]] = above[depth - 1]
    assert documented == {name: bases[0].__name__ for name, bases in TREE.items()}


ELSEWHERE: dict[str, tuple[type, ...]] = {
    "UnexpectedHostCallError": (
        errors.HostFunctionError,
        AssertionError,
    ),  # of plugwasm.testing, as are the next
    "UnexpectedRequestError": (errors.EgressError, AssertionError),
    "NoInterpreterError": (
        errors.Error,
    ),  # becomes the `ModuleError` or `WorkerError` of what needed one
    "KeptError": (errors.Error,),  # never leaves the process of an IsolatedPlugin
    "ProjectError": (errors.Error,),  # of the command line, as is the next
    "BuildError": (ProjectError,),
}


def test_errors_of_other_modules() -> None:
    """The error classes in other modules are exactly these."""
    others = {cls.__name__: cls.__bases__ for cls in CLASSES if cls.__module__ != "plugwasm.errors"}
    assert others.items() <= ELSEWHERE.items()


@of_each_class
def test_class_docstring_and_fields(cls: type[errors.Error]) -> None:
    """A class's docstring says what it means and describes its own fields."""
    assert "__doc__" in vars(cls)
    assert cls.__doc__
    own = set(vars(cls())) - {
        name for base in cls.__bases__ if issubclass(base, errors.Error) for name in vars(base())
    }
    for field in own:
        assert re.search(rf"^ +(\w+, )*{field}(, \w+)*: ", cls.__doc__, re.M)
    inherited = {
        field: value
        for base in cls.__mro__[1:]
        for field, value in OWN_FIELDS.get(base.__name__, {}).items()
    }
    assert cls is errors.Error or own | set(inherited) == set(fields_of(cls)) - set(FIELDS)


FIELDS: dict[str, Any] = {
    "plugin": "p",
    "function": "f",
    "code": -3,
    "guest_message": "said",
    "backtrace": ["inner @ 0x1", "outer @ 0x2"],
}
OWN_FIELDS = {
    "OptionError": {"field": "timeout", "reason": "expected a number"},
    "ManifestError": {"field": "wasm[0].hash", "reason": "expected 64 digits"},
    "SchemaError": {"problems": ("exports: missing",)},
    "HashMismatchError": {"field": "wasm[1].hash"},
    "ModuleError": {"limit": "compile_seconds"},
    "ScriptError": {"file": "rules.js", "line": 2, "column": 8, "stack": "TypeError: no"},
    "MissingImportError": {"hint": "pass `wasi=True`"},
    "EgressError": {"reason": "TLS failed", "limit": "max_response_bytes"},
    "TrapError": {"trap": "unreachable"},
    "InterfaceError": {"missing": ("find",)},
    "OutputError": {"path": "$.items[3].name", "output": b'{"items":['},
    "RowError": {"row": 7},
    "ReplayError": {"call": 3, "host_call": 2, "recorded": "one", "now": "another"},
}


def fields_of(cls: type[errors.Error]) -> dict[str, Any]:
    """Return a value for each field of the class and its bases."""
    return FIELDS | {
        field: value
        for base in reversed(cls.__mro__)
        for field, value in OWN_FIELDS.get(base.__name__, {}).items()
    }


@of_each_class
def test_an_error_carries_its_fields(cls: Callable[..., errors.Error] | type[errors.Error]) -> None:
    assert isinstance(cls, type)
    bare = cls()
    assert (
        bare.message,
        bare.plugin,
        bare.function,
        bare.code,
        bare.guest_message,
        bare.backtrace,
    ) == ("", None, None, None, None, ())
    given = fields_of(cls)
    error = cls("what failed", **given)
    assert vars(error) == given | {
        "message": "what failed",
        "backtrace": tuple(FIELDS["backtrace"]),
    }
    assert all(value != getattr(bare, field) for field, value in vars(error).items())
    assert error.args == ("what failed",)
    assert str(error) == "what failed\nwasm backtrace:\n  0: inner @ 0x1\n  1: outer @ 0x2"
    with pytest.raises(TypeError):
        cls("what failed", unknown=1)


JOURNEYS: dict[str, Callable[[Any], Any]] = {
    **{
        f"pickle {protocol}": lambda e, p=protocol: pickle.loads(pickle.dumps(e, p))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
by_each_way = pytest.mark.parametrize("journey", JOURNEYS.values(), ids=JOURNEYS)


@of_each_class
@by_each_way
def test_an_error_survives_a_journey(
    cls: type[errors.Error], journey: Callable[[Any], Any]
) -> None:
    error = cls("what failed", **fields_of(cls))
    error.__cause__ = ValueError("the cause")
    error.add_note("seen on a Tuesday")
    arrived = journey(error)
    assert type(arrived) is cls
    assert arrived.args == error.args
    assert str(arrived) == str(error)
    assert arrived.__dict__ == error.__dict__
    assert isinstance(arrived.__cause__, ValueError)
    assert arrived.__cause__.args == ("the cause",)
    assert arrived.__suppress_context__


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (lambda: plugwasm.Limits(timeout="1"), "timeout"),  # type: ignore[arg-type]
        (lambda: plugwasm.Limits().replace(memory_bytes=-1), "memory_bytes"),
        (lambda: plugwasm.ProcessLimits(grace=-1), "grace"),
        (lambda: plugwasm.ProcessLimits(user=(0, 0)), "user"),
        (lambda: plugwasm.FrozenClock(-1), None),
        (lambda: plugwasm.CoarseClock(0), None),
        (lambda: plugwasm.SeededRandom(1.5), None),  # type: ignore[arg-type]
        (lambda: plugwasm.WasiOptions(random=b"x"), None),  # type: ignore[arg-type]
        (lambda: plugwasm.Egress(allowed_hosts=["a:80"]), None),
        (lambda: plugwasm.Egress(proxy="socks://a.test"), None),
        (lambda: plugwasm.Egress(added_headers={"a.test": {}}), None),
        (lambda: plugwasm.Egress(max_per_second=0), None),
        (lambda: Plugin(FAULTY, fuel_limit=-1), "fuel_limit"),
        (lambda: Plugin(FAULTY, limits=5), "limits"),  # type: ignore[arg-type]
        (lambda: Plugin(FAULTY, wasi="yes"), "wasi"),  # type: ignore[arg-type]
        (lambda: Plugin(FAULTY, config={"key": 1}), "config"),  # type: ignore[dict-item]
        (lambda: Plugin(FAULTY, vars={"key": "text"}), "vars"),
        (lambda: plugwasm.IsolatedPlugin(FAULTY, process=5), None),  # type: ignore[arg-type]
        (lambda: plugwasm.PluginSet(instances=-1), None),
        (lambda: plugwasm.PluginSet({"": FAULTY}), None),
        (lambda: plugwasm.PluginSet([FAULTY]).disable("nobody"), None),
        (lambda: plugwasm.PluginSet([FAULTY]).first("good", parse=None), None),
        (lambda: plugwasm.PluginRef(FAULTY, functions=["no colon"]), "functions"),
        (lambda: plugwasm.FromEnvironment(""), None),
        (
            lambda: plugwasm.MapBatches(
                plugwasm.PluginRef(FAULTY), "good", column="a", on_error="ignore"
            ),
            "on_error",
        ),
        (lambda: plugwasm.set_log_file("/dev/null", "loud"), None),  # type: ignore[arg-type]
        (lambda: plugwasm.testing.Harness(FAULTY, log_level="loud"), None),
    ],
)
def test_invalid_argument_is_one_kind(wrong: Callable[[], object], field: str | None) -> None:
    """An invalid argument raises the same kind of error everywhere."""
    with pytest.raises(errors.OptionError) as caught:
        wrong()
    assert isinstance(caught.value, ValueError)
    assert caught.value.field == field
    assert caught.value.message


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Plugin({"wasm": []}),
        lambda: Plugin(5),  # type: ignore[arg-type]
        lambda: Plugin(manifest(FAULTY, config={"key": 1})),
        lambda: Plugin(manifest(FAULTY, timeout_ms=-1)),
        lambda: plugwasm.Manifest(wasm=[]),
        lambda: plugwasm.WasmSource(path="a", url="https://a.test"),
        lambda: plugwasm.PluginRef({"wasm": []}),
    ],
)
def test_manifest_faults_are_one_kind(wrong: Callable[[], object]) -> None:
    """Every fault in a manifest is a manifest error, in whatever form the manifest was passed."""
    with pytest.raises(errors.ManifestError) as caught:
        wrong()
    assert not isinstance(caught.value, errors.OptionError)


def test_no_cause_arrives_without_cause() -> None:
    """An unpickled error without a cause has none."""
    arrived = pickle.loads(pickle.dumps(errors.TrapError("t")))
    assert arrived.__cause__ is None
    assert not arrived.__suppress_context__


class TakesTwo(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} {two}")


HOLDS_A_FUNCTION = errors.GuestError("holds")
HOLDS_A_FUNCTION.function = lambda: None  # type: ignore[assignment]


@pytest.mark.parametrize(
    "cause",
    [ValueError(lambda: None), TakesTwo(1, 2), HOLDS_A_FUNCTION],
    ids=["not to be written", "not to be read", "one of ours"],
)
def test_unpicklable_cause(cause: Exception) -> None:
    """A cause that cannot be pickled does not prevent pickling the errors above it."""
    inner = errors.HostFunctionError("it raised", plugin="p")
    inner.__cause__ = cause
    error = errors.HostFunctionError("it raised too", plugin="q")
    error.__cause__ = inner
    arrived = pickle.loads(pickle.dumps(error))
    assert (arrived.message, arrived.plugin) == ("it raised too", "q")
    assert (arrived.__cause__.message, arrived.__cause__.plugin) == ("it raised", "p")
    assert arrived.__cause__.__cause__ is None


def chain(count: int) -> list[BaseException]:
    """Return errors of nested calls, the outermost first, and the original cause."""
    links = [
        *(errors.HostFunctionError(f"call {n}", plugin=f"p{n}") for n in range(count)),
        KeyError("what began it"),
    ]
    for above, below in itertools.pairwise(links):
        above.__cause__ = below
    return links


def causes(error: BaseException | None) -> list[BaseException]:
    return [] if error is None else [error, *causes(error.__cause__)]


@by_each_way
def test_chain_of_causes_pickles(journey: Callable[[Any], Any]) -> None:
    """A chain of causes is pickled completely and quickly."""
    links = chain(60)  # each that was looked at twice would double the time
    arrived = causes(journey(links[0]))
    assert [(type(link), link.args, vars(link)) for link in arrived] == [
        (type(link), link.args, vars(link)) for link in links
    ]


def test_long_or_circular_chain_is_cut() -> None:
    """A very long or circular chain is truncated."""
    assert 60 < len(causes(pickle.loads(pickle.dumps(chain(500)[0])))) < 200
    one, two = errors.GuestError("one"), errors.GuestError("two")
    one.__cause__, two.__cause__ = two, one
    arrived = pickle.loads(pickle.dumps(one))
    assert (arrived.message, arrived.__cause__.message) == ("one", "two")


class Refused(errors.OutOfMemoryError):
    """An application's own error, whose arguments are not a message."""

    def __init__(self, user: str, *, reason: str) -> None:
        super().__init__(f"{user} is refused", plugin="p")
        self.user, self.reason = user, reason


@by_each_way
def test_application_subclass_pickles(journey: Callable[[Any], Any]) -> None:
    """An application's own subclass can be pickled as well."""
    refused = Refused("Ada", reason="late")
    arrived = journey(refused)
    assert type(arrived) is Refused
    assert (arrived.args, vars(arrived)) == (refused.args, vars(refused))


def test_error_crosses_process_border() -> None:
    """An error can be raised in one process and caught in another."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        pytest.raises(
            errors.TrapError, match="`trap` of plugin `plugin` trapped: unreachable"
        ) as caught,
    ):
        pool.submit(_trap_elsewhere, FAULTY).result(60)
    assert caught.value.trap == "unreachable"
    assert caught.value.backtrace


def _trap_elsewhere(source: str) -> None:
    Plugin(source).call("trap")


def test_large_guest_messages_are_quick() -> None:
    """Large guest messages do not make creating an error slow."""
    source = guest(export("f", "(call $error_set (call $alloc (i64.const 3000000)))"))
    started = time.monotonic()
    with Plugin(source) as plugin, pytest.raises(errors.GuestError) as caught:
        plugin.call("f")
    assert len(caught.value.message) <= 3_000_000
    assert time.monotonic() - started < 2
