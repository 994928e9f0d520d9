"""`plugwasm call`.

Decisions: docs/decisions.md, 37.4.
"""

from __future__ import annotations

from typing import Annotated

import typer

from ..parameters import (
    HTTP,
    IO,
    LIMITS,
    OTHER,
    PERMISSIONS,
    AllowPathOption,
    ConfigOption,
    FunctionArgument,
    InputFileOption,
    InputOption,
    LinkOption,
    PluginArgument,
    StdinOption,
    TimeoutOption,
    TracebackOption,
    WasiOption,
)
from ..terminal import log_to_stderr, report_errors

HELP = (
    "Call a function of a plugin, and write its output.\n\n"
    "Options add to what a manifest grants, and replace its limits. "
    "What plugins log or print goes to stderr."
)
EPILOG = "Exit codes: 1 the plugin failed, 2 wrong usage or no such file, 3 a limit was reached."


def call(
    context: typer.Context,
    plugin: PluginArgument,
    function: FunctionArgument,
    input: InputOption = None,
    input_file: InputFileOption = None,
    stdin: StdinOption = False,
    output_file: Annotated[
        str | None,
        typer.Option(
            "--output-file",
            "-o",
            metavar="PATH",
            help="Write the output to a file.",
            rich_help_panel=IO,
        ),
    ] = None,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            metavar="",
            help="Write the bytes unchanged, to a terminal too.",
            rich_help_panel=IO,
        ),
    ] = False,
    loop: Annotated[
        str,
        typer.Option(
            "--loop",
            metavar="N",
            help="Call it N times, one output a line.",
            show_default=False,
            rich_help_panel=IO,
        ),
    ] = "1",
    config: ConfigOption = None,
    config_file: Annotated[
        str | None,
        typer.Option(
            "--config-file",
            metavar="PATH",
            help="The same, from a JSON or TOML file; values are text.",
            rich_help_panel=PERMISSIONS,
        ),
    ] = None,
    set_config: Annotated[
        str | None,
        typer.Option(
            "--set-config",
            metavar="JSON",
            help="The same, as a JSON object.",
            rich_help_panel=PERMISSIONS,
        ),
    ] = None,
    wasi: WasiOption = False,
    allow_path: AllowPathOption = None,
    link: LinkOption = None,
    manifest: Annotated[
        bool,
        typer.Option(
            "--manifest",
            "-m",
            metavar="",
            help="PLUGIN is a manifest; not needed, as this is detected.",
            rich_help_panel=PERMISSIONS,
        ),
    ] = False,
    set_hash: Annotated[
        str | None,
        typer.Option(
            "--set-hash",
            metavar="SHA256",
            help="The SHA-256 that the module must have.",
            rich_help_panel=PERMISSIONS,
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="GLOB",
            help="Grant HTTP to hosts, as in *.example.com.",
            rich_help_panel=HTTP,
        ),
    ] = None,
    http_response_headers: Annotated[
        bool,
        typer.Option(
            "--enable-http-response-headers",
            metavar="",
            help="Let the plugin read the headers of responses.",
            rich_help_panel=HTTP,
        ),
    ] = False,
    http_response_max: Annotated[
        str | None,
        typer.Option(
            "--http-response-max", metavar="N", help="Bytes of one response.", rich_help_panel=HTTP
        ),
    ] = None,
    timeout: TimeoutOption = None,
    memory_max_pages: Annotated[
        str | None,
        typer.Option(
            "--memory-max",
            "--memory-max-pages",
            metavar="N",
            help="Pages of 64 KiB that it may start with, and may add.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    var_max: Annotated[
        str | None,
        typer.Option(
            "--var-max",
            metavar="N",
            help="Bytes of all vars; 0 turns them off.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    fuel: Annotated[
        str | None,
        typer.Option(
            "--fuel",
            metavar="N",
            help="The fuel of a call: about one unit per instruction.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    gc: Annotated[
        bool,
        typer.Option(
            "--gc",
            metavar="",
            help="Allow the Wasm feature GC (garbage-collected objects).",
            rich_help_panel=LIMITS,
        ),
    ] = False,
    atomics: Annotated[
        bool,
        typer.Option(
            "--atomics", metavar="", help="Allow atomic instructions.", rich_help_panel=LIMITS
        ),
    ] = False,
    stats: Annotated[
        bool,
        typer.Option(
            "--stats",
            metavar="",
            help="Write to stderr what each call cost.",
            rich_help_panel=OTHER,
        ),
    ] = False,
    trace: Annotated[
        bool,
        typer.Option(
            "--trace",
            metavar="",
            help="Write to stderr each host call, with its values.",
            rich_help_panel=OTHER,
        ),
    ] = False,
    record: Annotated[
        str | None,
        typer.Option(
            "--record",
            metavar="PATH",
            help="Record all that the host answers, for `plugwasm replay`.",
            rich_help_panel=OTHER,
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            metavar="PATH",
            help="Write where the time was spent: .html, .svg, .json, .txt.",
            rich_help_panel=OTHER,
        ),
    ] = None,
    log_level: Annotated[
        str,
        typer.Option(
            "--log-level",
            metavar="LEVEL",
            help="trace, debug, info, warn, error or off.",
            rich_help_panel=OTHER,
        ),
    ] = "info",
    traceback: TracebackOption = False,
) -> None:
    """Call a function of a plugin, and write its output."""
    with report_errors(context.command_path, traceback=traceback):
        from .. import invocation, options, streams

        # All options are checked before anything is read or compiled.
        rounds = options.parse_number("--loop", loop, 1, options.MAX_NUMBER)
        fuel_limit = (
            None if fuel is None else options.parse_number("--fuel", fuel, 1, options.MAX_NUMBER)
        )
        read = streams.input_reader(input, input_file, stdin)
        profiling = invocation.make_profiler(profile)
        overrides = invocation.Overrides(
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
            log_to_stderr(options.parse_log_level(log_level)),
            streams.open_output(output_file, lines=rounds > 1, raw=raw) as write,
        ):
            granted = wasi or bool(allow_path)
            with invocation.observe_calls(stats=stats, trace=trace, record=record) as observers:
                settings = {
                    "wasi": granted,
                    "fuel_limit": fuel_limit,
                    "observe": observers,
                    "http_response_headers": http_response_headers,
                }
                for output in invocation.run_calls(
                    plugin,
                    function,
                    read,
                    overrides,
                    settings,
                    rounds=rounds,
                    profiling=profiling,
                    explained=traceback,
                ):
                    write(output)
