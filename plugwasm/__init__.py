"""Run WebAssembly plugins in any Python application: fast, sandboxed, compatible with Extism.

    import plugwasm

    with plugwasm.Plugin("count_vowels.wasm") as plugin:
        plugin.call("count_vowels", "Hello, World!")

README.md lists the pages of the manual; docs/architecture.md has the map of the modules.
"""

from __future__ import annotations

TYPE_CHECKING = False

_PUBLIC_MODULES = (
    "aio",
    "cache",
    "codecs",
    "debugging",
    "errors",
    "interfaces",
    "manifest",
    "observing",
    "otel",
    "plugin_set",
    "recording",
    "testing",
)
_PUBLIC_NAMES = {
    "_distributed.map_batches": "MapBatches",
    "_distributed.ref": "FromEnvironment PluginRef",
    "_engine": "FunctionType Item use_explicit_checks",
    "_host.current_plugin": "CurrentPlugin Memory",
    "_host.functions": "Codec Function Json Pickle UnsafePickle Val ValType host_fn",
    "_host.log_handlers": "CustomLogger set_log_custom set_log_file",
    "_http.body": "Readable",
    "_http.egress": "Egress",
    "_http.socket_transport": "HttpTransport",
    "_http.transport": "EgressRequest EgressResponse Transport",
    "_isolation.plugin": "IsolatedPlugin",
    "_manifest.limits": "Limits ProcessLimits",
    "_manifest.model": "Manifest MemoryOptions WasmSource",
    "_manifest.policy": "ManifestPolicy",
    "_manifest.resolve": "Admitted",
    "_plugin_set.plugin_set": "PluginSet",
    "_pool.lease": "Lease",
    "_pool.map": "AsyncOutputs",
    "_pool.pool": "PluginPool",
    "_pool.slots": "PoolStats",
    "_runtime.abstract_plugin": "CancelHandle",
    "_runtime.argument_types": "Observe PluginInput",
    "_runtime.compiled_plugin": "CompiledPlugin",
    "_runtime.interfaces": "export host_namespace",
    "_runtime.observers": "Measured",
    "_runtime.plugin": "Plugin",
    "_runtime.recycling": "Recycle",
    "_script.script": "script",
    "_version": "__version__",
    "_wasi.options": "Clock CoarseClock FrozenClock SeededRandom WasiOptions",
    "errors": (
        "BadHandleError BatchError BusyError CallError CancelledError ClosedError "
        "EgressDeniedError EgressError EngineError Error ExitError FunctionNotFoundError "
        "GuestError HashMismatchError HostFunctionError InstanceLostError InterfaceError "
        "LinkError ManifestError MissingImportError ModuleError OptionError OutOfFuelError "
        "OutOfMemoryError OutputError PoolTimeoutError RecordingError ReplayError RowError "
        "SchemaError ScriptError SignatureError SourceError "
        "StackError TimeoutError TrapError WorkerError"
    ),
}
"""The public names, by the module that defines them. `__all__`, the imports on first use, and the
imports for type checkers follow from it; a test compares the latter."""

_DEFINING_MODULES = {
    name: module for module, names in _PUBLIC_NAMES.items() for name in names.split()
}

__all__ = sorted([*_DEFINING_MODULES, *_PUBLIC_MODULES, "extism_version", "get_include"])

if TYPE_CHECKING:
    from . import aio as aio
    from . import cache as cache
    from . import codecs as codecs
    from . import debugging as debugging
    from . import errors as errors
    from . import interfaces as interfaces
    from . import manifest as manifest
    from . import observing as observing
    from . import otel as otel
    from . import plugin_set as plugin_set
    from . import recording as recording
    from . import testing as testing
    from ._distributed.map_batches import MapBatches as MapBatches
    from ._distributed.ref import FromEnvironment as FromEnvironment
    from ._distributed.ref import PluginRef as PluginRef
    from ._engine import FunctionType as FunctionType
    from ._engine import Item as Item
    from ._engine import use_explicit_checks as use_explicit_checks
    from ._host.current_plugin import CurrentPlugin as CurrentPlugin
    from ._host.current_plugin import Memory as Memory
    from ._host.functions import Codec as Codec
    from ._host.functions import Function as Function
    from ._host.functions import Json as Json
    from ._host.functions import Pickle as Pickle
    from ._host.functions import UnsafePickle as UnsafePickle
    from ._host.functions import Val as Val
    from ._host.functions import ValType as ValType
    from ._host.functions import host_fn as host_fn
    from ._host.log_handlers import CustomLogger as CustomLogger
    from ._host.log_handlers import set_log_custom as set_log_custom
    from ._host.log_handlers import set_log_file as set_log_file
    from ._http.body import Readable as Readable
    from ._http.egress import Egress as Egress
    from ._http.socket_transport import HttpTransport as HttpTransport
    from ._http.transport import EgressRequest as EgressRequest
    from ._http.transport import EgressResponse as EgressResponse
    from ._http.transport import Transport as Transport
    from ._isolation.plugin import IsolatedPlugin as IsolatedPlugin
    from ._manifest.limits import Limits as Limits
    from ._manifest.limits import ProcessLimits as ProcessLimits
    from ._manifest.model import Manifest as Manifest
    from ._manifest.model import MemoryOptions as MemoryOptions
    from ._manifest.model import WasmSource as WasmSource
    from ._manifest.policy import ManifestPolicy as ManifestPolicy
    from ._manifest.resolve import Admitted as Admitted
    from ._plugin_set.plugin_set import PluginSet as PluginSet
    from ._pool.lease import Lease as Lease
    from ._pool.map import AsyncOutputs as AsyncOutputs
    from ._pool.pool import PluginPool as PluginPool
    from ._pool.slots import PoolStats as PoolStats
    from ._runtime.abstract_plugin import CancelHandle as CancelHandle
    from ._runtime.argument_types import Observe as Observe
    from ._runtime.argument_types import PluginInput as PluginInput
    from ._runtime.compiled_plugin import CompiledPlugin as CompiledPlugin
    from ._runtime.interfaces import export as export
    from ._runtime.interfaces import host_namespace as host_namespace
    from ._runtime.observers import Measured as Measured
    from ._runtime.plugin import Plugin as Plugin
    from ._runtime.recycling import Recycle as Recycle
    from ._script.script import script as script
    from ._version import __version__ as __version__
    from ._wasi.options import Clock as Clock
    from ._wasi.options import CoarseClock as CoarseClock
    from ._wasi.options import FrozenClock as FrozenClock
    from ._wasi.options import SeededRandom as SeededRandom
    from ._wasi.options import WasiOptions as WasiOptions
    from .errors import BadHandleError as BadHandleError
    from .errors import BatchError as BatchError
    from .errors import BusyError as BusyError
    from .errors import CallError as CallError
    from .errors import CancelledError as CancelledError
    from .errors import ClosedError as ClosedError
    from .errors import EgressDeniedError as EgressDeniedError
    from .errors import EgressError as EgressError
    from .errors import EngineError as EngineError
    from .errors import Error as Error
    from .errors import ExitError as ExitError
    from .errors import FunctionNotFoundError as FunctionNotFoundError
    from .errors import GuestError as GuestError
    from .errors import HashMismatchError as HashMismatchError
    from .errors import HostFunctionError as HostFunctionError
    from .errors import InstanceLostError as InstanceLostError
    from .errors import InterfaceError as InterfaceError
    from .errors import LinkError as LinkError
    from .errors import ManifestError as ManifestError
    from .errors import MissingImportError as MissingImportError
    from .errors import ModuleError as ModuleError
    from .errors import OptionError as OptionError
    from .errors import OutOfFuelError as OutOfFuelError
    from .errors import OutOfMemoryError as OutOfMemoryError
    from .errors import OutputError as OutputError
    from .errors import PoolTimeoutError as PoolTimeoutError
    from .errors import RecordingError as RecordingError
    from .errors import ReplayError as ReplayError
    from .errors import RowError as RowError
    from .errors import SchemaError as SchemaError
    from .errors import ScriptError as ScriptError
    from .errors import SignatureError as SignatureError
    from .errors import SourceError as SourceError
    from .errors import StackError as StackError
    from .errors import TimeoutError as TimeoutError
    from .errors import TrapError as TrapError
    from .errors import WorkerError as WorkerError

else:  # for a type checker, which would take every name for one of the package

    def _import(module: str) -> object:
        # As `importlib.import_module`, without importing `importlib`.
        return __import__(f"{__name__}.{module}", fromlist=("__name__",))

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used: a program that needs few waits for few."""
        if name in _PUBLIC_MODULES:
            return _import(name)
        module = _DEFINING_MODULES.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(_import(module), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return list(__all__)


def extism_version() -> str:
    """Return the version of plugwasm; the official SDK has this function under the same name."""
    from ._version import __version__

    return __version__


def get_include() -> str:
    """Return the directory for a C compiler's `-I`.

    Plugins then have `#include "plugwasm.h"`, a plug-in development kit in one header.
    """
    import os.path

    here = os.path.dirname(os.path.abspath(__file__))
    kits = os.path.join(here, "_pdk")
    if not os.path.isdir(kits):  # not in the repository
        kits = os.path.join(os.path.dirname(here), "pdk")
    return os.path.join(kits, "c", "include")
