"""How long calls of plugins took, what the plugins asked for, and spans of everything.

pip install 'plugwasm[otel]' opentelemetry-sdk
python examples/observing.py
"""

from __future__ import annotations

import logging
from pathlib import Path

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import plugwasm
from plugwasm import Measured
from plugwasm.observing import Call, CallLog, HostCall, Trace
from plugwasm.otel import OpenTelemetry

HERE = Path(__file__).resolve().parent


@plugwasm.host_fn()
def greet(name: str) -> str:
    return f"Hello, {name}!"


@plugwasm.host_fn()
def add(a: int, b: int) -> int:
    return a + b


@plugwasm.host_fn()
def scale(x: float) -> float:
    return x * 2.5


def show(record: Call | HostCall) -> None:
    print(f"  {'  ' if isinstance(record, HostCall) else ''}{record}")


def main() -> None:
    print("What a call took:")
    with plugwasm.Plugin(HERE / "count_vowels.wasm", observe=True) as plugin:
        for text in ("Hello", "Hello, World! " * 5000):
            result = plugin.call("count_vowels", text, returns=Measured[dict[str, int | str]])
            call = result.call
            print(
                f"  {result.value['count']} vowels in {call.input_bytes} bytes:",
                f"{1e6 * call.seconds:.0f} µs, {1e6 * call.guest_seconds:.0f} in the guest,",
                f"{1e6 * call.host_seconds:.0f} in {call.host_calls} host calls,",
                f"{1e6 * call.start_seconds:.0f} for making the instance",
            )

    print("\nWhat the plugin asked for:")
    with plugwasm.Plugin(
        HERE / "count_vowels.wasm", config={"vowels": "aeiou"}, observe=Trace(show)
    ) as plugin:
        plugin.call("count_vowels", "Hello")

    print("\nCalls that fail, as records of the log:")
    logging.basicConfig(
        format="  %(levelname)s %(name)s: %(function)s of %(plugin)s raised %(error)s", force=True
    )
    with plugwasm.Plugin(HERE / "faulty.wasm", observe=CallLog(slower_than=1.0)) as plugin:
        for numbers in ("2 3 5", "2 3 five"):
            try:
                plugin.call("primes", numbers)
            except plugwasm.TrapError as error:
                print(f"  {error.message}")

    print("\nSpans for OpenTelemetry:")
    exporter, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    observer = OpenTelemetry(tracer_provider=tracers)
    with plugwasm.Plugin(
        HERE / "host_functions.wasm", functions=[greet, add, scale], observe=observer
    ) as plugin:
        plugin.call("sum", "19 23")
    for span in exporter.get_finished_spans():
        took = ((span.end_time or 0) - (span.start_time or 0)) / 1e3
        print(f"  {span.name}: {took:.0f} µs")


if __name__ == "__main__":
    main()
