"""From bytes to a call: compile, link, instantiate, call, and report what failed.

plugin           `Plugin`
abstract_plugin  what `Plugin` and `IsolatedPlugin` share; `CancelHandle`
observed_plugin  classes of observed plugins
compiled_plugin  `CompiledPlugin`
settings         what an application gives a plugin, checked
inputs           conversion of inputs and config
modules          compiled modules, kept in the process
compiler         compilation within limits of time and memory
inlining/        the kernel's load and store functions, inlined into modules
code_cache       compiled code on disk
linker           modules, kernel, WASI and host functions to a plan, and to instances
plans            plans that plugins of the same module and settings share
units            a module with the sources of its imports, and instances of it
trampolines      host functions that stand for exports of other modules, and for WASI
facts            what modules export and import, and who provides the imports
import_stubs     stubs for host functions
recycling        `Recycle`: new instances after so many calls, so much memory, or so long
call_queue       callers that wait for a busy plugin
call_errors      reports of the engine to `plugwasm.errors`
instrumentation  timing and values of observed calls
observers        `Observer`, `Trace`, `CallLog`, `Measured`
interfaces       protocols bound to plugins
threads          calls in threads, for a task that awaits them
argument_types   types of arguments of several public functions
signatures       overloads of `call` and `call_async`
"""
