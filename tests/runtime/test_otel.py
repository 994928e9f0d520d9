"""OpenTelemetry: the tree of spans, the metrics, and data that neither may contain."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NoOpTracerProvider, get_current_span

import plugwasm
import plugwasm.otel
from plugwasm import Function, IsolatedPlugin, Plugin, PluginPool, PluginSet
from plugwasm.otel import MAX_NAMES, OpenTelemetry
from tests.support.guests import export, guest, manifest
from tests.support.http_server import Server, reply
from tests.support.paths import ROOT

IMPORTS = '(import "extism:host/user" "f" (func $f))'
SOURCE = guest(
    export("run", "(call $f)")
    + export("echo", "(call $echo)")
    + export("trap", "unreachable")
    + export("fail", "(call $error_set <<the plugin's own words>>)")
    + export(
        "asks",
        "(drop (call $config_get <<key>>)) (call $var_set <<v>> <<x>>) (call $log_info <<hi>>)",
    ),
    IMPORTS,
)


class Exported:
    """The spans and metrics that an SDK received."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider(metric_readers=[self.reader], shutdown_on_exit=False)
        self.tracer = self.tracers.get_tracer("application")

    def observer(self, **options: Any) -> OpenTelemetry:
        return OpenTelemetry(self.tracers, self.meters, **options)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def tree(self) -> list[str]:
        """Return the names of the spans below their parents, in order of their start."""
        spans = sorted(self.spans, key=lambda span: span.start_time or 0)

        def below(parent: int | None, level: int) -> Iterator[str]:
            for span in spans:
                if (span.parent.span_id if span.parent else None) == parent:
                    yield "  " * level + span.name
                    yield from below(span.context.span_id, level + 1)

        return list(below(None, 0))

    def span(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.spans if span.name == name]
        return span

    def metrics(self) -> dict[str, Any]:
        data = self.reader.get_metrics_data()
        return (
            {}
            if data is None
            else {
                m.name: m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics
            }
        )

    def everything(self) -> str:
        data = self.reader.get_metrics_data()
        return "".join(span.to_json() for span in self.spans) + (
            "" if data is None else data.to_json()
        )


@pytest.fixture
def exported() -> Exported:
    return Exported()


def f(body: Any) -> list[Function]:
    return [plugwasm.host_fn(name="f")(body)]


def nothing() -> None:
    pass


# ---- spans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Plugin, IsolatedPlugin])
def test_span_of_call(make: type[Plugin], exported: Exported) -> None:
    """A call's span is a child of the caller's and the parent of those of host functions."""

    def body() -> None:
        with exported.tracer.start_as_current_span("query"):
            pass

    with make(SOURCE, functions=f(body), name="p", observe=exported.observer()) as plugin:
        with exported.tracer.start_as_current_span("request") as request:
            plugin.call("run")
            plugin.call("echo", "abc")
            assert get_current_span() is request
        plugin.call("asks")
    assert exported.tree() == ["request", "  p/run", "    f", "      query", "  p/echo", "p/asks"]
    assert get_current_span().get_span_context().is_valid is False


def test_a_span_says_what_the_call_took(exported: Exported) -> None:
    with Plugin(
        SOURCE, functions=f(nothing), name="p", fuel_limit=10**6, observe=exported.observer()
    ) as plugin:
        plugin.call("run", "abc")
    span, host = exported.span("p/run"), exported.span("f")
    attributes = dict(span.attributes or {})
    assert {
        name: attributes[name]
        for name in attributes
        if "seconds" not in name and name not in ("plugwasm.fuel", "plugwasm.memory_bytes")
    } == {
        "plugwasm.plugin": "p",
        "plugwasm.function": "run",
        "plugwasm.host_calls": 1,
        "plugwasm.http_requests": 0,
        "plugwasm.input_bytes": 3,
        "plugwasm.output_bytes": 0,
    }
    assert (
        min(
            attributes[f"plugwasm.{name}"]
            for name in ("start_seconds", "guest_seconds", "host_seconds", "fuel", "memory_bytes")
        )
        > 0
    )
    assert dict(host.attributes or {}) == {
        "plugwasm.plugin": "p",
        "plugwasm.function": "run",
        "plugwasm.namespace": "extism:host/user",
        "plugwasm.host_function": "f",
    }
    for one in (span, host):
        assert one.kind.name == "INTERNAL"
        assert one.status.status_code.name == "UNSET"
        assert (one.instrumentation_scope.name, one.instrumentation_scope.version) == (
            "plugwasm",
            plugwasm.__version__,
        )


@pytest.mark.parametrize("host_calls", [True, False])
def test_span_of_coroutine(exported: Exported, host_calls: bool) -> None:
    """Spans of host function coroutines are children of the call's span."""

    async def body() -> None:
        with exported.tracer.start_as_current_span("before"):
            await asyncio.sleep(0.01)
        await inner.call_async("echo")

    inner = Plugin(SOURCE, functions=f(nothing), name="inner", observe=exported.observer())
    outer = Plugin(
        SOURCE, functions=f(body), name="outer", observe=exported.observer(host_calls=host_calls)
    )

    async def main() -> None:
        with exported.tracer.start_as_current_span("request") as request:
            await outer.call_async("run")
            assert get_current_span() is request

    asyncio.run(main())
    above = ["request", "  outer/run", *(["    f"] if host_calls else [])]
    indent = "  " * len(above)
    assert exported.tree() == [*above, f"{indent}before", f"{indent}inner/echo"]


def test_span_of_cancelled_coroutine(exported: Exported, caplog: pytest.LogCaptureFixture) -> None:
    """Cancelling a coroutine ends the spans around it."""

    async def body() -> None:
        await asyncio.sleep(30)

    plugin = Plugin(SOURCE, functions=f(body), name="p", observe=exported.observer())

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await plugin.call_async("run")
        assert not get_current_span().get_span_context().is_valid

    asyncio.run(main())
    assert exported.tree() == ["p/run", "  f"]
    assert exported.span("p/run").status.status_code.name == "ERROR"
    assert not caplog.records


def test_span_in_pools_and_sets(exported: Exported) -> None:
    """Spans of calls through pools and sets are children of the caller's."""
    observer = exported.observer()
    with PluginPool(SOURCE, functions=f(nothing), name="p", size=2, observe=observer) as pool:
        with exported.tracer.start_as_current_span("map"):
            assert len(list(pool.map("echo", ["a", "b", "c"]))) == 3

        async def main() -> None:
            with exported.tracer.start_as_current_span("tasks"):
                await asyncio.gather(pool.call_async("echo"), pool.call_async("echo"))

        asyncio.run(main())
        with exported.tracer.start_as_current_span("call"):
            pool.call("echo")
    with (
        PluginSet({"a": SOURCE, "b": SOURCE}, functions=f(nothing), observe=observer) as plugins,
        exported.tracer.start_as_current_span("set"),
    ):
        plugins.all("echo", "x")
    assert exported.tree() == [
        "map",
        *["  p/echo"] * 3,
        "tasks",
        *["  p/echo"] * 2,
        "call",
        "  p/echo",
        "set",
        "  a/echo",
        "  b/echo",
    ]


def test_span_of_busy_plugin(exported: Exported) -> None:
    """A call that waits for a busy plugin has its own span."""

    def body() -> None:
        with pytest.raises(plugwasm.BusyError):
            plugin.call("echo")

    with Plugin(SOURCE, functions=f(body), name="p", observe=exported.observer()) as plugin:
        plugin.call("run")
    assert exported.tree() == ["p/run", "  f", "    p/_OTHER"]
    assert exported.span("p/_OTHER").attributes["error.type"] == "BusyError"  # type: ignore[index]


# ---- errors --------------------------------------------------------------------------------------


def exception(span: ReadableSpan) -> dict[str, Any]:
    (event,) = span.events
    assert event.name == "exception"
    return dict(event.attributes or {})


def test_a_call_that_fails_says_why(exported: Exported) -> None:
    with Plugin(SOURCE, functions=f(nothing), name="p", observe=exported.observer()) as plugin:
        for function in ("trap", "fail"):
            with pytest.raises(plugwasm.CallError):
                plugin.call(function)
    trap, fail = exported.span("p/trap"), exported.span("p/fail")
    assert trap.attributes["error.type"] == "TrapError"  # type: ignore[index]
    assert (trap.status.status_code.name, trap.status.description) == (
        "ERROR",
        "`trap` of plugin `p` trapped: unreachable",
    )
    assert exception(trap)["exception.type"] == "plugwasm.errors.TrapError"
    assert exception(trap)["exception.stacktrace"]
    assert (fail.attributes["error.type"], fail.status.description) == (
        "GuestError",
        "the plugin's own words",
    )
    assert exception(fail) == {
        "exception.type": "plugwasm.errors.GuestError",
        "exception.message": "the plugin's own words",
    }


def test_host_exception_hides_message(exported: Exported) -> None:
    """A host function's exception is exported by class and location, without its message."""

    def body() -> None:
        raise ValueError("postgres://user:secret@db")

    with Plugin(SOURCE, functions=f(body), name="p", observe=exported.observer()) as plugin:
        with pytest.raises(plugwasm.HostFunctionError, match="secret"):
            plugin.call("run", "secret")
        with pytest.raises(plugwasm.OutputError, match="secret"):
            plugin.call("echo", "secret", returns=int)
        with pytest.raises(ValueError, match="secret"):
            plugin.call("echo", "secret", int)
    host = exception(exported.span("f"))
    assert host["exception.type"] == "ValueError"
    assert (
        f'File "{__file__}", line {body.__code__.co_firstlineno + 1}, in body'
        in host["exception.stacktrace"]
    )
    assert exported.span("f").attributes["error.type"] == "ValueError"  # type: ignore[index]
    assert exported.span("p/run").attributes["error.type"] == "HostFunctionError"  # type: ignore[index]
    spans = [span for span in exported.spans if span.name == "p/echo"]
    assert [exception(span)["exception.type"] for span in spans] == [
        "plugwasm.errors.OutputError",
        "ValueError",
    ]
    # The stack has the lines of the program, and one of them is the text above.
    assert "secret" not in exported.everything().replace(
        'raise ValueError(\\"postgres://user:secret@db\\")', ""
    )


def test_long_and_broken_text(exported: Exported) -> None:
    """Long and invalid texts are exported in a form that exporters accept."""
    source = guest(export("fail", "(call $error_set <<" + "x" * 5000 + ">>)"))
    with Plugin(source, name="x\ny", observe=exported.observer()) as plugin:
        for function in ("fail", "\udc80" * 5000):
            with pytest.raises(plugwasm.CallError):
                plugin.call(function)
    for span in exported.spans:
        texts = [
            span.name,
            span.status.description or "",
            *map(str, (span.attributes or {}).values()),
            *exception(span).values(),
        ]
        assert max(len(text.encode()) for text in texts) <= 2003
    assert [span.name for span in exported.spans] == ["x\\ny/fail", "x\\ny/_OTHER"]


# ---- HTTP ----------------------------------------------------------------------------------------


def requesting_guest(document: str) -> str:
    return guest(export("run", f"(drop (call $http_request <<{document}>> <<the body>>))"))


def test_http_span_hides_secrets(exported: Exported) -> None:
    """An HTTP request has a span by the conventions, without secrets."""
    with Server(
        {"/": reply(b"the answer"), "/missing": reply(b"the answer", status=404)}
    ) as server:
        for path, method in (("/", "post"), ("/missing", "POST")):
            document = json.dumps(
                {
                    "url": f"{server.url}{path}?token=secret#part",
                    "method": method,
                    "headers": {"x-key": "secret"},
                }
            )
            with Plugin(
                manifest(requesting_guest(document), allowed_hosts=["127.0.0.1"]),
                name="p",
                observe=exported.observer(),
            ) as plugin:
                plugin.call("run")
        port = int(server.url.rpartition(":")[2])
    assert exported.tree() == ["p/run", "  POST"] * 2
    first, second = (span for span in exported.spans if span.name == "POST")
    assert first.kind.name == "CLIENT"
    assert dict(first.attributes or {}) == {
        "plugwasm.plugin": "p",
        "plugwasm.function": "run",
        "http.request.method": "POST",
        "url.scheme": "http",
        "server.address": "127.0.0.1",
        "server.port": port,
        "http.response.status_code": 200,
    }
    assert first.status.status_code.name == "UNSET"
    assert second.attributes["error.type"] == "404"  # type: ignore[index]
    assert second.status.status_code.name == "ERROR"
    assert not second.events
    for secret in ("secret", "the body", "the answer", "x-key", "/missing"):
        assert secret not in exported.everything()
    assert exported.metrics()["plugwasm.http_requests"].data.data_points[0].value == 2


@pytest.mark.parametrize(
    ("document", "name", "attributes"),
    [
        (
            '{"url": "http://a.test/"}',
            "GET",
            {"server.address": "a.test", "server.port": 80, "url.scheme": "http"},
        ),
        ('{"url": "http://user:secret@a.test/"}', "GET", {}),
        (
            '{"url": "http://[::1]:8080/"}',
            "GET",
            {"server.address": "::1", "server.port": 8080, "url.scheme": "http"},
        ),
        ('{"url": "gopher://a.test/", "method": "SECRET"}', "HTTP", {}),
        ('{"url": {"secret": 1}, "method": ["secret"]}', "HTTP", {}),
        ("not json: secret", "HTTP", {}),
    ],
)
def test_http_span_of_refused_request(
    document: str, name: str, attributes: dict[str, Any], exported: Exported
) -> None:
    """A refused request has a span that says so."""
    source = guest(export("run", f"(drop (call $http_request <<{document}>> (i64.const 0)))"))
    with (
        Plugin(manifest(source, allowed_hosts=["b.test"]), observe=exported.observer()) as plugin,
        pytest.raises(plugwasm.EgressError),
    ):
        plugin.call("run")
    span = exported.span(name)
    found = dict(span.attributes or {})
    assert {key: found[key] for key in found if key.startswith(("server", "url"))} == attributes
    assert found["http.request.method"] == ("_OTHER" if name == "HTTP" else name)
    assert found["error.type"] in ("EgressError", "EgressDeniedError")
    assert span.status.status_code.name == "ERROR"
    assert "secret" not in exported.everything().lower()


# ---- metrics -------------------------------------------------------------------------------------


def points(metric: Any) -> dict[tuple[str, str | None], Any]:
    return {
        (p.attributes["plugwasm.function"], p.attributes.get("error.type")): p
        for p in metric.data.data_points
    }


def test_metrics_units(exported: Exported) -> None:
    """Calls are measured in seconds and bytes."""
    with Plugin(
        SOURCE, functions=f(nothing), name="p", fuel_limit=10**6, observe=exported.observer()
    ) as plugin:
        plugin.call("echo", "abc")
        plugin.call("echo", "abcde")
        plugin.call("run")
        for function in ("trap", "missing"):
            with pytest.raises(plugwasm.CallError):
                plugin.call(function)
    metrics = exported.metrics()
    assert {name: metric.unit for name, metric in metrics.items()} == {
        "plugwasm.call.duration": "s",
        "plugwasm.call.start.duration": "s",
        "plugwasm.call.guest.duration": "s",
        "plugwasm.call.host.duration": "s",
        "plugwasm.call.input.size": "By",
        "plugwasm.call.output.size": "By",
        "plugwasm.call.memory.peak": "By",
        "plugwasm.call.fuel": "{fuel}",
        "plugwasm.host_calls": "{call}",
    }
    durations = points(metrics["plugwasm.call.duration"])
    assert {key: point.count for key, point in durations.items()} == {
        ("echo", None): 2,
        ("run", None): 1,
        ("trap", "TrapError"): 1,
        ("_OTHER", "FunctionNotFoundError"): 1,
    }
    assert {p.attributes["plugwasm.plugin"] for p in durations.values()} == {"p"}
    assert durations["echo", None].explicit_bounds[:2] == (1e-6, 5e-6)
    assert points(metrics["plugwasm.call.input.size"])["echo", None].sum == 8
    assert points(metrics["plugwasm.call.output.size"])["echo", None].sum == 8
    assert ("trap", "TrapError") not in points(metrics["plugwasm.call.output.size"])
    assert points(metrics["plugwasm.call.start.duration"]).keys() == {("echo", None)}
    assert points(metrics["plugwasm.call.host.duration"]).keys() == {("run", None)}
    assert points(metrics["plugwasm.host_calls"])["run", None].value == 1
    assert ("_OTHER", "FunctionNotFoundError") not in points(
        metrics["plugwasm.call.guest.duration"]
    )


def test_recycled_instances_are_counted(exported: Exported) -> None:
    """Each instance that was replaced is counted once, with the reason, in a pool too."""
    recycle = plugwasm.Recycle(calls=2)
    observer = exported.observer()
    with Plugin(SOURCE, functions=f(nothing), observe=observer, recycle=recycle) as plugin:
        for _ in range(5):
            plugin.call("echo", "x")
    with PluginPool(
        SOURCE, functions=f(nothing), size=1, observe=observer, recycle=recycle
    ) as pool:
        for _ in range(3):
            pool.call("echo", "x")
    (point,) = exported.metrics()["plugwasm.recycled_instances"].data.data_points
    assert (point.value, point.attributes["plugwasm.recycled"]) == (3, "calls")


def test_metrics_ignore_free_names(exported: Exported, caplog: pytest.LogCaptureFixture) -> None:
    """Names that anyone may choose are no attributes of metrics."""
    observer = OpenTelemetry(NoOpTracerProvider(), exported.meters)
    hosts = [f"h{n}.test" for n in range(30)]
    requests = [
        json.dumps({"url": f"http://{host}/{host}", "method": f"M{n}"})
        for n, host in enumerate(hosts)
    ]
    source = guest(
        "".join(
            export(f"r{n}", f"(drop (call $http_request <<{one}>> (i64.const 0)))")
            for n, one in enumerate(requests)
        )
    )
    with Plugin(SOURCE, functions=f(nothing), name="p", observe=observer) as plugin:
        for n in range(300):
            with pytest.raises(plugwasm.FunctionNotFoundError):
                plugin.call(f"x{n}")
    assert len(exported.metrics()["plugwasm.call.duration"].data.data_points) == 1
    with Plugin(manifest(source, allowed_hosts=["a.test"]), name="q", observe=observer) as plugin:
        for n in range(30):
            with pytest.raises(plugwasm.EgressError):
                plugin.call(f"r{n}")
    metrics = exported.metrics()
    assert {key for m in metrics.values() for p in m.data.data_points for key in p.attributes} == {
        "plugwasm.plugin",
        "plugwasm.function",
        "error.type",
    }
    assert len(metrics["plugwasm.http_requests"].data.data_points) == 30
    assert not caplog.records


def test_metrics_bound_names(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of distinct names in metrics is bounded."""
    assert MAX_NAMES >= 1000
    monkeypatch.setattr(plugwasm.otel, "MAX_NAMES", 5)
    compiled = plugwasm.CompiledPlugin(guest(export("a", "") + export("b", "")))
    observer = OpenTelemetry(NoOpTracerProvider(), exported.meters)
    for n in range(20):
        compiled.name = f"p{n}"
        with Plugin(compiled, observe=observer) as plugin:
            plugin.call("a")
            plugin.call("b")
    found = exported.metrics()["plugwasm.call.duration"].data.data_points
    assert len(found) == 6
    assert {p.attributes["plugwasm.plugin"]: p.count for p in found}["_OTHER"] == 35


# ---- with and without an SDK ---------------------------------------------------------------------


def test_unsampled_span_is_parent(exported: Exported) -> None:
    """The span of a call that is not sampled is not exported but is still the parent."""
    tracers = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    inside = []
    with Plugin(
        SOURCE,
        functions=f(lambda: inside.append(get_current_span())),
        observe=OpenTelemetry(tracers, NoOpMeterProvider()),
    ) as plugin:
        plugin.call("run")
    assert inside[0].get_span_context().is_valid
    assert not inside[0].get_span_context().trace_flags.sampled


def test_absent_span_hides_no_parent(exported: Exported) -> None:
    """If no span is created for a call, the caller's span stays the current one."""
    inside = []
    observer = OpenTelemetry(NoOpTracerProvider(), exported.meters)
    plugin = Plugin(
        SOURCE, functions=f(lambda: inside.append(get_current_span())), observe=observer
    )
    with plugin, exported.tracer.start_as_current_span("request") as request:
        plugin.call("run")
        assert request.is_recording()
    assert inside == [request]
    assert exported.tree() == ["request"]


def run(script: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


ECHO = f"plugwasm.Plugin({str(ROOT / 'examples' / 'echo.wasm')!r}, observe=plugwasm.otel.OpenTelemetry())"


def test_sdk_set_up_later() -> None:
    """Without an SDK, calls work, and an SDK that is set up later is used."""
    script = f"""
import plugwasm
from opentelemetry import trace
plugin = {ECHO}
print(plugin.call("echo", "before"), trace.get_current_span().get_span_context().is_valid)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
print(plugin.call("echo", "after"), [span.name for span in exporter.get_finished_spans()])
"""
    assert run(script).splitlines() == ["b'before' False", "b'after' ['echo/echo']"]


def test_missing_package() -> None:
    """Without the package, the module can be imported, and the error says what to install."""
    script = f"""
import sys
sys.modules["opentelemetry"] = None
import plugwasm
from plugwasm import *
assert otel is plugwasm.otel
try:
    {ECHO}
except ImportError as error:
    print(error)
"""
    assert (
        run(script)
        == "spans and metrics need the package `opentelemetry-api`: pip install 'plugwasm[otel]'\n"
    )


def test_lazy_import() -> None:
    """OpenTelemetry is imported only on request."""
    script = f"""
import sys, plugwasm
from plugwasm import observing
plugwasm.Plugin({str(ROOT / "examples" / "echo.wasm")!r}, observe=observing.CallLog()).call("echo")
print([name for name in sys.modules if "opentelemetry" in name])
"""
    assert run(script) == "[]\n"


def test_observers_share_instruments(exported: Exported, caplog: pytest.LogCaptureFixture) -> None:
    """Observers of one provider share their instruments."""
    for _ in range(2):
        with Plugin(SOURCE, functions=f(nothing), name="p", observe=exported.observer()) as plugin:
            plugin.call("echo")
    (point,) = exported.metrics()["plugwasm.call.duration"].data.data_points
    assert point.count == 2
    assert not caplog.records


def test_names_are_documented() -> None:
    """The documentation lists every exported name."""
    page = (ROOT / "docs" / "observing.md").read_text()
    code = Path(plugwasm.otel.__file__).read_text()
    names = {f"plugwasm.call.{name}" for name in re.findall(r'= histogram\("([a-z.]+)"', code)}
    names |= set(re.findall(r'"((?:plugwasm|http|server|url|error|exception)\.[a-z._]+)"', code))
    names |= {f"plugwasm.{name}" for name in plugwasm.otel._SPAN_FIELDS}
    assert len(names) > 20
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []
