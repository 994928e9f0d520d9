"""The commands and their options. What takes time to import is imported by the command that needs it."""

from __future__ import annotations

import os
import sys
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from .._version import __version__
from .terminal import (
    INTERRUPTED,
    USAGE,
    escape,
    log_to_stderr,
    print_error,
    print_usage_error,
    report_errors,
    silence_stdout,
    write_stdout,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_ClickException: Any = next(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException"
)
"""The root of the errors that parsing raises. It has no public name in all versions of typer."""


class _Commands(TyperGroup):
    """The root command. Errors of parsing are written the way that all other errors are, not in a frame."""

    def main(
        self,
        args: Sequence[str] | None = None,
        *rest: Any,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        extra["prog_name"] = "plugwasm"
        try:
            code = super().main(args, standalone_mode=False, **extra)
            if sys.stdout is not None:
                sys.stdout.flush()
        except _ClickException as error:
            message = error.format_message()
            context = getattr(error, "ctx", None)
            command = (
                context.command_path
                if context is not None
                else self._path_of(sys.argv[1:] if args is None else args)
            )
            hint = (
                "; --input gives the input"
                if command.endswith(" call") and "extra argument" in message
                else ""
            )
            print_usage_error(message[:1].lower() + message[1:].rstrip(".") + hint, command)
            code = USAGE
        except typer.Abort:
            code = INTERRUPTED
        except BrokenPipeError:
            code = silence_stdout()
        if standalone_mode:
            sys.exit(code)
        return code

    def _path_of(self, args: Sequence[str]) -> str:
        """The command that was meant, for errors that do not say: `plugwasm cache clear`."""
        names, group = ["plugwasm"], self
        for argument in args:
            command = group.commands.get(argument)
            if command is not None:
                names.append(argument)
            elif not argument.startswith("-"):
                break
            if command is not None:
                if not isinstance(command, TyperGroup):
                    break
                group = command  # type: ignore[assignment]
        return " ".join(names)


# Tables cut the names of options where there is no room for them; text without tables puts them into lines of their own.
_COLUMNS = get_terminal_size().columns
_MARKUP: Literal["rich"] | None = "rich" if _COLUMNS >= 80 else None
_SETTINGS: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "terminal_width": min(_COLUMNS, 80) - 1,
}

app = typer.Typer(
    cls=_Commands,
    name="plugwasm",
    help="Run WebAssembly plugins: sandboxed, compatible with Extism.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=_MARKUP,
    context_settings=_SETTINGS,
)
cache_app = typer.Typer(help="The cache of compiled code.", rich_markup_mode=_MARKUP)
app.add_typer(cache_app, name="cache")


def execute(arguments: Sequence[str]) -> int:
    """Runs the command line and gives its exit code."""
    try:
        app(list(arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


_IO, _MAY, _HTTP, _LIMITS, _OTHER = (
    "Input and output",
    "What the plugin is and may do",
    "HTTP",
    "Limits",
    "Other",
)

PluginArgument = Annotated[
    str,
    typer.Argument(
        metavar="PLUGIN",
        help="A .wasm or .wat file, a URL, or a manifest in JSON or TOML.",
        show_default=False,
    ),
]
TracebackOption = Annotated[
    bool,
    typer.Option(
        "--traceback",
        metavar="",
        help="When it fails, show where in Python and Wasm.",
        rich_help_panel=_OTHER,
    ),
]


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        engine = version("wasmtime")
    except PackageNotFoundError:
        engine = "missing"
    typer.echo(
        f"plugwasm {__version__} (wasmtime {engine}, Python {sys.version.partition(' ')[0]})"
    )
    raise typer.Exit


@app.callback(invoke_without_command=True)
def _root_command(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            metavar="",
            help="Show the versions and exit.",
            is_eager=True,
            callback=_show_version,
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        if help := context.get_help():  # with rich it is on the screen already
            typer.echo(help)
        raise typer.Exit(USAGE)


@app.command(
    epilog="Exit codes: 1 the plugin failed, 2 wrong usage or no such file, 3 a limit was reached.",
)
def call(
    context: typer.Context,
    plugin: PluginArgument,
    function: Annotated[
        str, typer.Argument(metavar="FUNCTION", help="The export to call.", show_default=False)
    ],
    input: Annotated[
        str | None,
        typer.Option(
            "--input",
            "-i",
            metavar="TEXT",
            help="The input; - reads standard input.",
            rich_help_panel=_IO,
        ),
    ] = None,
    input_file: Annotated[
        str | None,
        typer.Option(
            "--input-file", metavar="PATH", help="The file that is the input.", rich_help_panel=_IO
        ),
    ] = None,
    stdin: Annotated[
        bool,
        typer.Option(
            "--stdin",
            metavar="",
            help="Read the input from standard input, as when it is piped in.",
            rich_help_panel=_IO,
        ),
    ] = False,
    output_file: Annotated[
        str | None,
        typer.Option(
            "--output-file",
            "-o",
            metavar="PATH",
            help="Write the output to a file.",
            rich_help_panel=_IO,
        ),
    ] = None,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            metavar="",
            help="Write the bytes as they are to a terminal too.",
            rich_help_panel=_IO,
        ),
    ] = False,
    loop: Annotated[
        str,
        typer.Option(
            "--loop",
            metavar="N",
            help="Call it N times, one output a line.",
            show_default=False,
            rich_help_panel=_IO,
        ),
    ] = "1",
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--config",
            "-c",
            metavar="KEY=VALUE",
            help="What the plugin can read.",
            rich_help_panel=_MAY,
        ),
    ] = None,
    config_file: Annotated[
        str | None,
        typer.Option(
            "--config-file",
            metavar="PATH",
            help="The same from a file: JSON or TOML, all text.",
            rich_help_panel=_MAY,
        ),
    ] = None,
    set_config: Annotated[
        str | None,
        typer.Option(
            "--set-config", metavar="JSON", help="The same as a JSON object.", rich_help_panel=_MAY
        ),
    ] = None,
    wasi: Annotated[
        bool,
        typer.Option(
            "--wasi",
            metavar="",
            help="Grant WASI: clocks, random numbers, output.",
            rich_help_panel=_MAY,
        ),
    ] = False,
    allow_path: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-path",
            metavar="HOST[:GUEST]",
            help="Grant a directory (and WASI); ro: before it for read-only.",
            rich_help_panel=_MAY,
        ),
    ] = None,
    link: Annotated[
        list[str] | None,
        typer.Option(
            "--link",
            metavar="NAME=PATH",
            help="A module that the plugin imports from.",
            rich_help_panel=_MAY,
        ),
    ] = None,
    manifest: Annotated[
        bool,
        typer.Option(
            "--manifest",
            "-m",
            metavar="",
            help="PLUGIN is a manifest, which is seen anyway.",
            rich_help_panel=_MAY,
        ),
    ] = False,
    set_hash: Annotated[
        str | None,
        typer.Option(
            "--set-hash", metavar="SHA256", help="What the module must be.", rich_help_panel=_MAY
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="GLOB",
            help="Grant HTTP to hosts, as in *.example.com.",
            rich_help_panel=_HTTP,
        ),
    ] = None,
    http_response_headers: Annotated[
        bool,
        typer.Option(
            "--enable-http-response-headers",
            metavar="",
            help="Let it read headers of responses.",
            rich_help_panel=_HTTP,
        ),
    ] = False,
    http_response_max: Annotated[
        str | None,
        typer.Option(
            "--http-response-max", metavar="N", help="Bytes of one response.", rich_help_panel=_HTTP
        ),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            "--timeout",
            metavar="MS",
            help="Milliseconds that a call may take: 500; or 500ms, 2s.",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    memory_max_pages: Annotated[
        str | None,
        typer.Option(
            "--memory-max",
            "--memory-max-pages",
            metavar="N",
            help="Pages of 64 KiB to start with, and to add.",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    var_max: Annotated[
        str | None,
        typer.Option(
            "--var-max",
            metavar="N",
            help="Bytes of all vars; 0 turns them off.",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    fuel: Annotated[
        str | None,
        typer.Option(
            "--fuel", metavar="N", help="About one unit an instruction.", rich_help_panel=_LIMITS
        ),
    ] = None,
    gc: Annotated[
        bool,
        typer.Option(
            "--gc",
            metavar="",
            help="Allow objects of the garbage collector.",
            rich_help_panel=_LIMITS,
        ),
    ] = False,
    atomics: Annotated[
        bool,
        typer.Option(
            "--atomics", metavar="", help="Allow atomic instructions.", rich_help_panel=_LIMITS
        ),
    ] = False,
    stats: Annotated[
        bool,
        typer.Option(
            "--stats",
            metavar="",
            help="Write to stderr what each call took.",
            rich_help_panel=_OTHER,
        ),
    ] = False,
    trace: Annotated[
        bool,
        typer.Option(
            "--trace",
            metavar="",
            help="Write to stderr each host call, with its values.",
            rich_help_panel=_OTHER,
        ),
    ] = False,
    record: Annotated[
        str | None,
        typer.Option(
            "--record",
            metavar="PATH",
            help="Write all that the host answered, for `plugwasm replay`.",
            rich_help_panel=_OTHER,
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            metavar="PATH",
            help="Write where the time went: .html, .svg, .json, .txt.",
            rich_help_panel=_OTHER,
        ),
    ] = None,
    log_level: Annotated[
        str,
        typer.Option(
            "--log-level",
            metavar="LEVEL",
            help="trace, debug, info, warn, error or off.",
            rich_help_panel=_OTHER,
        ),
    ] = "info",
    traceback: TracebackOption = False,
) -> None:
    """Call a function of a plugin, and write its output.

    Options add to what a manifest grants, and replace its limits. What plugins log or print goes to stderr.
    """
    with report_errors(context.command_path, traceback=traceback):
        from . import streams
        from .commands import call as run

        # All that was typed is looked at before anything is read or compiled.
        rounds = run.parse_number("--loop", loop, 1, run.MAX_NUMBER)
        fuel_limit = None if fuel is None else run.parse_number("--fuel", fuel, 1, run.MAX_NUMBER)
        read = streams.input_reader(input, input_file, stdin)
        profiling = run.make_profiler(profile)
        overrides = run.Overrides(
            config=config or (),
            config_file=config_file,
            set_config=set_config,
            hosts=allow_host or (),
            paths=allow_path or (),
            timeout=timeout,
            max_pages=memory_max_pages,
            http_response_max=http_response_max,
            var_max=var_max,
            links=link or (),
            sha256=set_hash,
            gc=gc,
            atomics=atomics,
        )
        with (
            log_to_stderr(run.parse_log_level(log_level)),
            streams.open_output(output_file, lines=rounds > 1, raw=raw) as write,
        ):
            granted = wasi or bool(allow_path)
            with run.observe_calls(stats=stats, trace=trace, record=record) as observers:
                options = {
                    "wasi": granted,
                    "fuel_limit": fuel_limit,
                    "observe": observers,
                    "http_response_headers": http_response_headers,
                }
                for output in run.run_calls(
                    plugin,
                    function,
                    read,
                    overrides,
                    options,
                    rounds=rounds,
                    profiling=profiling,
                    explained=traceback,
                ):
                    write(output)


@app.command(
    epilog="Exit codes: 1 the plugin does something else, 2 wrong usage or no such file.",
)
def replay(
    context: typer.Context,
    recording: Annotated[
        str,
        typer.Argument(metavar="RECORDING", help="What --record has written.", show_default=False),
    ],
    plugin: Annotated[
        str | None,
        typer.Argument(
            metavar="PLUGIN",
            help="Another build, instead of the files that were recorded.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            "--timeout",
            metavar="MS",
            help="Milliseconds that a call may take (500; or 500ms, 2s), and all together ten times that; 60s if not given.",
        ),
    ] = None,
    traceback: TracebackOption = False,
) -> None:
    """Run the calls of a recording again, and check that the plugin does the same.

    The plugin gets what the host answered then: nothing is asked of the network, of files or of the clock.
    """
    with report_errors(context.command_path, traceback=traceback):
        from .._manifest.limits import Limits
        from .._recording.recorder import load
        from .commands.call import parse_milliseconds

        limits = None if timeout is None else Limits(timeout=parse_milliseconds(timeout) / 1000)
        ran = load(recording).replay(plugin, limits=limits)
        count = "1 call" if len(ran.calls) == 1 else f"{len(ran.calls)} calls"
        typer.echo(f"{escape(ran.recording.plugin)} does the same: {count}")


@app.command()
def inspect(
    context: typer.Context,
    plugin: PluginArgument,
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="As JSON.")] = False,
    traceback: TracebackOption = False,
) -> None:
    """Show what a plugin exports and imports, and who provides that. Nothing of it runs."""
    with report_errors(context.command_path, traceback=traceback), log_to_stderr("warn"):
        from .._manifest.resolve import resolve
        from .commands.inspect import collect_facts, print_facts

        found = collect_facts(resolve(plugin))
        if as_json:
            import json

            write_stdout(json.dumps(found, indent=2).encode() + b"\n")
        else:
            print_facts(found)


@app.command()
def schema(context: typer.Context) -> None:
    """Show the JSON Schema of manifests, for editors and other tools."""
    with report_errors(context.command_path):
        import json

        from .._manifest.model import json_schema

        write_stdout(json.dumps(json_schema(), indent=2).encode() + b"\n")


@cache_app.callback(invoke_without_command=True)
def _cache(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        with report_errors(context.command_path):
            path = _cache_directory()
            sizes = _entry_sizes(path)
            what = "1 entry" if len(sizes) == 1 else f"{len(sizes)} entries"
            typer.echo(f"{escape(path)}: {what}, {sum(sizes) / 2**20:.1f} MiB")


@cache_app.command("dir")
def cache_dir(context: typer.Context) -> None:
    """Show where compiled code is kept."""
    with report_errors(context.command_path):
        write_stdout(os.fsencode(_cache_directory()) + b"\n")


@cache_app.command("clear")
def cache_clear(context: typer.Context) -> None:
    """Remove all compiled code that is kept."""
    with report_errors(context.command_path):
        from .._runtime import code_cache as cache

        path = _cache_directory()
        removed = cache.clear()
        typer.echo(
            f"removed {'1 entry' if removed == 1 else f'{removed} entries'} from {escape(path)}"
        )


def _cache_directory() -> str:
    from .._runtime import code_cache as cache

    path = cache.directory()
    if path is None:
        print_error("the cache is off (PLUGWASM_CACHE)")
        raise typer.Exit(USAGE)
    return path


def _entry_sizes(path: str) -> list[int]:
    try:
        with os.scandir(path) as found:
            return [
                entry.stat(follow_symlinks=False).st_size
                for entry in found
                if entry.name.endswith(".code")
            ]
    except FileNotFoundError:
        return []
