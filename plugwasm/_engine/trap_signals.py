"""Signals of the processor, by which compiled code traps, and who handles them in this process.

Compiled code need not check each access to a memory, each division and so on: the processor
notices, the system sends the thread a signal (SIGSEGV, SIGILL, SIGFPE), and the engine's handler
makes a trap of it. That makes code smaller and faster, and halves the time to compile it. But it
relies on the handler, which belongs to the process: if another one takes its place, a trap ends the
process. Therefore:

- `faulthandler` is enabled before the first engine, if the application has not done so. From then
  on `faulthandler.enable` only changes where it writes. It stays behind the engine's handler, which
  passes on to it what is no trap. Until the application enables it, it writes to a descriptor that
  no process can have, so there is nothing to keep open.
- `are_held` looks who handles the signals when an instance starts, before a call, and after a host
  function of the application, unless somebody looked within `LOOK_INTERVAL`. After
  `faulthandler.disable`, and after that and `faulthandler.enable`, the engine's handlers are put
  back. Any other handler is respected: from then on the process uses engines whose code checks
  explicitly.
- The signals are not to be blocked in a thread that runs a guest, because the system ends a process
  that causes a blocked one. So `are_held` unblocks them in its thread.

The handlers belong to the process, and so does the state of this module.

Decisions: docs/decisions.md, 46.
"""

from __future__ import annotations

import ctypes
import os
import sys

from .._platform.native_threads import sleep
from .ffi import lib
from .resources import in_main_interpreter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VARIABLE = "PLUGWASM_EXPLICIT_CHECKS"
"""The environment variable that chooses explicit checks."""

LOOK_INTERVAL = 0.001
"""Seconds for which what was found is trusted. Before a call it is only trusted by the same
thread."""

_SIGNALS = {"SIGILL": 4, "SIGBUS": 7, "SIGFPE": 8, "SIGSEGV": 11}
_REQUIRED = frozenset((4, 11))
_SIGABRT = 6
_UNBLOCK = 1
_NO_DESCRIPTOR = 2**31 - 1
"""A number that no descriptor has: the system allows fewer."""
_Action = ctypes.c_uint64 * 64
"""Room for more than a `struct sigaction`, in which the handler comes first."""
_SET_BYTES = 128
_DEFAULT, _IGNORE = 0, 1
_DYING_SECONDS = 0.5
_PLATFORMS = ("x86_64", "aarch64")


class _Library(ctypes.Structure):
    _fields_ = (
        ("path", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


class Look:
    """When to look again, after a host function, who handles the signals; never without signals."""

    __slots__ = ("next",)

    def __init__(self) -> None:
        self.next: float = float("inf")


after_host_function = Look()


class _State:
    """What is known of this process."""

    libc: Any = None
    """The C library, once it is known that the process may rely on signals."""
    refused: str | None = None
    """Why new engines check explicitly, or None."""
    lost: str | None = None
    """Whose handler took the engine's place, or None."""
    actions: dict[int, Any] = {}  # noqa: RUF012
    """The engine's actions by signal: what `sigaction` takes to install them."""
    handlers: tuple[tuple[int, int], ...] = ()
    """The engine's handlers: signals and addresses."""
    mask: bytes = b""
    """The engine's signals as a `sigset_t`."""
    behind: int | None = None
    """The address of `faulthandler`'s handler if it is the one behind the engine's."""


def use_explicit_checks() -> None:
    """Have plugins compiled with explicit checks, instead of relying on signals for their traps.

    Call it before the first plugin is made; plugins that run already are not affected. It suits
    processes in which a crash reporter or another language's runtime takes over SIGSEGV after
    plugins were started. The environment variable `PLUGWASM_EXPLICIT_CHECKS=1` does the same.
    Plugins take 10 to 20 % longer to run, and twice as long to compile.
    """
    _State.refused = _State.refused or "the application called `use_explicit_checks`"


use_explicit_checks.__module__ = "plugwasm"


def may_use_signals() -> bool:
    """Return whether new engines may rely on signals, and prepare the process for the first one."""
    if _State.refused is None and _State.libc is None:
        _State.refused = _find_obstacle()
        if _State.refused is None:
            _State.libc = ctypes.PyDLL(None)
            _put_faulthandler_behind()
    return _State.refused is None


def _find_obstacle() -> str | None:
    """Return why this process cannot rely on signals, or None."""
    chosen = os.environ.get(VARIABLE, "")
    if chosen.strip().lower() not in ("", "0", "off", "no", "false"):
        return f"the environment variable {VARIABLE} says so"
    # Elsewhere the engine has other means, which we have not tried with other handlers.
    if sys.platform != "linux" or os.uname().machine not in _PLATFORMS:
        return "they were not tried on this platform"
    if not in_main_interpreter():
        return "this is a subinterpreter"
    libc = ctypes.PyDLL(None)
    if not all(hasattr(libc, name) for name in ("sigaction", "dladdr", "pthread_sigmask")):
        return "the C library does not tell who handles signals"
    return None


def _put_faulthandler_behind() -> None:
    import faulthandler

    if _is_engine(_read(_SIGNALS["SIGSEGV"])[0]):  # somebody else uses the same library
        if not faulthandler.is_enabled():
            _lose("an engine that was made before plugwasm's first one, without `faulthandler`")
        return
    _enable_faulthandler()
    handler = _read(_SIGNALS["SIGSEGV"])[0]
    if handler == _read(_SIGABRT)[0]:
        _State.behind = handler


def _enable_faulthandler() -> None:
    import faulthandler

    if not faulthandler.is_enabled():
        quiet: dict[str, Any] = {"all_threads": False}
        if sys.version_info >= (3, 14):
            quiet["c_stack"] = False
        faulthandler.enable(_NO_DESCRIPTOR, **quiet)


def note_engine() -> None:
    """Note which handlers the engine has; to be called after one was made that relies on them."""
    if _State.handlers or not may_use_signals():
        return
    actions = {number: _read(number) for number in _SIGNALS.values()}
    own = {number: action for number, action in actions.items() if _is_engine(action[0])}
    if not own.keys() >= _REQUIRED:
        _lose(_describe(actions[_SIGNALS["SIGSEGV"]][0]))
        return
    _State.actions = own
    _State.mask = sum(1 << number - 1 for number in own).to_bytes(_SET_BYTES, "little")
    _State.handlers = tuple((number, action[0]) for number, action in own.items())
    after_host_function.next = 0.0


def are_held() -> bool:
    """Return whether traps of this thread reach the engine. If not, they never will again."""
    if _State.lost is not None or not _State.handlers:
        return False
    look, action = _State.libc.sigaction, _Action()
    for number, handler in _State.handlers:
        look(number, None, action)
        if action[0] != handler and not _put_back():
            return False
    _State.libc.pthread_sigmask(_UNBLOCK, _State.mask, None)
    return True


def lost_to() -> str | None:
    """Return whose handler took the engine's place, or None."""
    return _State.lost


def _put_back() -> bool:
    """Put the engine's handlers back where nobody but `faulthandler` took their place.

    Returns:
        Whether they are in place.
    """
    _wait_for_dying_process()
    for number, handler in _State.handlers:
        present = _read(number)[0]
        if _State.behind is None or present not in (handler, _State.behind, _DEFAULT, _IGNORE):
            _lose(_describe(present))
            return False
    # The engine passes on to its handler, which must be on: else it would return to the faulting
    # instruction, for ever.
    _enable_faulthandler()
    for number, action in _State.actions.items():
        _State.libc.sigaction(number, action, None)
    return True


def _wait_for_dying_process() -> None:
    """Wait if `faulthandler` may be about to end the process, in another thread.

    It restores the default action, writes the traceback, and sends the signal once more. If the
    engine's handler were back by then, it would pass on to `faulthandler`, which would send the
    signal again, for ever. After `faulthandler.disable` it is not enabled. What is left is an
    application that chose the default action itself, whose thread waits once.
    """
    import faulthandler

    if faulthandler.is_enabled() and any(_read(number)[0] == _DEFAULT for number in _State.actions):
        sleep(_DYING_SECONDS)


def _lose(whose: str) -> None:
    """Note that the handlers are somebody else's."""
    from logging import getLogger

    _State.lost = whose
    _State.refused = f"SIGSEGV or a signal like it is handled by {whose}"
    getLogger("plugwasm").warning(
        "traps cannot be signals in this process any more, because SIGSEGV or a signal like it is "
        "handled by %s: new instances of plugins run with explicit checks, somewhat slower "
        "(`plugwasm.use_explicit_checks`)",
        whose,
    )


def _read(number: int) -> Any:
    """Return how the process handles a signal."""
    action = _Action()
    _State.libc.sigaction(number, None, action)
    return action


def _find_library(address: int) -> _Library | None:
    found = _Library()
    if address in (_DEFAULT, _IGNORE):
        return None
    is_found = _State.libc.dladdr(ctypes.c_void_p(address), ctypes.byref(found))
    return found if is_found else None


def _is_engine(handler: int) -> bool:
    """Return whether a handler is the engine's: code of its library."""
    address = ctypes.cast(lib.wasm_engine_new_with_config, ctypes.c_void_p).value or 0
    own, found = _find_library(address), _find_library(handler)
    return own is not None and found is not None and own.base == found.base


def _describe(handler: int) -> str:
    if handler in (_DEFAULT, _IGNORE):
        return "nobody"
    found = _find_library(handler)
    name = os.path.basename(os.fsdecode(found.path)) if found is not None and found.path else ""
    return f"code of `{name}`" if name else "code of unknown origin"
