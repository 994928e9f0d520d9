"""A short run of every harness in `fuzz/`, and proof that each finds the faults it looks for."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import random
import socket
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import plugwasm
from fuzz import FINDINGS, NAMES, harness, inputs, watch
from fuzz.choices import Choices
from fuzz.session import DroppedError, Finding, Session, TooSlowError, describe_input, save
from plugwasm import ManifestError
from plugwasm.manifest import parse
from tests.support.guests import export, guest, manifest
from tests.support.paths import ROOT
from tests.support.waiting import soon

# What one run may do. A guest costs a compilation, and both it and a module may take a process
# along.
EXECUTIONS = {
    "manifests": 150,
    "urls": 1500,
    "exchanges": 800,
    "kernel": 80,
    "inlining": 15,
    "modules": 250,
    "guests": 25,
    "linked": 60,
    "recordings": 100,
    "batches": 400,
    "workers": 300,
    "typed": 1500,
    "scripts": 100,
}
IN_A_CHILD = ("modules", "guests", "linked", "batches")


@pytest.mark.parametrize("seed", [1, None], ids=["the same seed", "a new seed"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_a_short_run_finds_nothing(name: str, seed: int | None) -> None:
    subject = harness(name)
    seed = random.randrange(2**31) if seed is None else seed
    if name in IN_A_CHILD:
        outcome = watch.watch(
            name,
            seed=seed,
            seconds=None,
            executions=EXECUTIONS[name],
            guided=False,
            folder=FINDINGS,
        )
        found = [
            Path(path).with_suffix(".txt").read_text() + f"\npython -m fuzz {name} {path}"
            for path in outcome.findings
        ]
        executions = outcome.executions
    else:
        session = Session(subject)
        session.run(
            inputs.mutate_randomly(subject.SEEDS, subject.SIZES, seed), executions=EXECUTIONS[name]
        )
        found = [format_finding(subject, finding) for finding in session.findings.values()]
        executions = session.executions
    assert not found, f"seed {seed}\n" + "\n\n".join(found)
    assert executions == EXECUTIONS[name]


def format_finding(subject: Any, finding: Finding) -> str:
    return f"{describe_input(subject, finding.data)}\n{finding.report}\npython -m fuzz … {save(finding, subject, FINDINGS)}"


def first_finding(name: str, executions: int) -> Finding:
    """Return the finding of a run that must have one. The seed is one that finds it soon."""
    subject = harness(name)
    session = Session(subject, minimize_seconds=0)
    for data in itertools.islice(
        inputs.mutate_randomly(subject.SEEDS, subject.SIZES, 3), executions
    ):
        if found := session.run_case(data):
            return found
    raise AssertionError(f"{executions} executions of {name} did not notice it")


# ---- bugs that are planted, and found ------------------------------------------------------------


def raise_key_error(*args: Any, **kwargs: Any) -> Any:
    raise KeyError("planted")


def test_finds_manifest_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest field that raises an undocumented exception is found."""
    monkeypatch.setattr("plugwasm._manifest.model.normalize_hash", raise_key_error)
    found = first_finding("manifests", 500)
    assert isinstance(found.error, KeyError)
    assert "hash" in describe_input(harness("manifests"), found.data)


def test_finds_secret_in_manifest_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest error that shows a secret is found."""
    monkeypatch.setattr("plugwasm._manifest.plain.json_type", lambda value: "a value")
    monkeypatch.setattr(
        "plugwasm._manifest.model.Manifest.__repr__", lambda self: f"Manifest(config={self.config})"
    )
    assert "a secret in a repr" in str(first_finding("manifests", 500).error)


def test_finds_policy_user_name_confusion(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that takes the host from behind a user name is found."""
    from plugwasm._http.url import Target

    honest = Target.parse
    monkeypatch.setattr(
        Target,
        "parse",
        staticmethod(lambda url: honest(url.replace("good.test@", "").replace("@", "."))),
    )
    first_finding("urls", 5000)


def test_finds_wildcard_private_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wildcard that grants private addresses is found."""
    monkeypatch.setattr("plugwasm._http.policy.why_not_public", lambda address: None)
    assert "is not among" in str(first_finding("urls", 5000).error)


def test_finds_header_injection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header that injects another line is found."""
    from http import client

    monkeypatch.setattr(
        "plugwasm._http.headers.HeaderRules.check", lambda self, headers: dict(headers)
    )
    monkeypatch.setattr(client, "_is_illegal_header_value", lambda value: None)
    monkeypatch.setattr(client, "_is_legal_header_name", lambda name: True)
    first_finding("exchanges", 3000)


def test_finds_credentials_after_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that follow a redirect to another origin are found."""
    monkeypatch.setattr(
        "plugwasm._http.headers.HeaderRules.added_for",
        lambda self, target: {"Authorization": "s3cr3t-9f1c"},
    )
    monkeypatch.setattr(
        "plugwasm._http.url.Target.origin", property(lambda self: "everywhere the same")
    )
    assert "a secret of one origin" in str(first_finding("exchanges", 3000).error)


def test_finds_host_function_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host function that raises an undocumented exception is found."""
    monkeypatch.setattr("plugwasm._host.vars.Vars.get", raise_key_error)
    assert isinstance(first_finding("guests", 60).error, KeyError)


def test_finds_writable_read_only_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only directory that can be written is found."""
    from plugwasm._wasi.files import Preopen

    honest = Preopen.__init__
    monkeypatch.setattr(
        Preopen,
        "__init__",
        lambda self, host, guest, read_only=False: honest(self, host, guest, False),
    )
    assert "files have changed" in str(first_finding("guests", 60).error)


def test_finds_descriptor_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptors that stay open are found."""
    from plugwasm._wasi.files import Preopen

    kept: list[Any] = []
    honest = Preopen.__init__

    def keep(self: Any, *args: Any, **kwargs: Any) -> None:
        honest(self, *args, **kwargs)
        kept.append(self)

    monkeypatch.setattr(Preopen, "__init__", keep)
    monkeypatch.setattr("fuzz.guests.soon", lambda condition: condition())
    assert "left open" in str(first_finding("guests", 5).error)


def test_finds_module_load_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module whose load raises an undocumented exception is found."""
    monkeypatch.setattr("plugwasm._runtime.linker._check_start", raise_key_error)
    assert isinstance(first_finding("modules", 50).error, KeyError)


def test_finds_replay_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording whose replay raises an undocumented exception is found."""
    monkeypatch.setattr("plugwasm._recording.replay._compare_outcomes", raise_key_error)
    assert isinstance(first_finding("recordings", 300).error, KeyError)


def test_finds_replay_dependence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay that depends on more than the recording is found."""
    from plugwasm._recording import replay

    honest, count = replay._replay_call, itertools.count()

    def another(*args: Any) -> replay.ReplayedCall:
        return dataclasses.replace(honest(*args), vars={"total": str(next(count)).encode()})

    monkeypatch.setattr(replay, "_replay_call", another)
    assert "something else" in str(first_finding("recordings", 50).error)


def test_finds_batch_read_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch stream whose reading raises an undocumented exception is found."""
    monkeypatch.setattr("plugwasm._distributed.arrow._FlatTable.lengths", raise_key_error)
    assert isinstance(first_finding("batches", 20).error, KeyError)


def test_finds_unchecked_error_field(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error field used without validation of the worker's value is found."""
    monkeypatch.setattr(
        "plugwasm._isolation.worker_errors.error_fields", lambda kind, said: dict(said)
    )
    assert isinstance(first_finding("workers", 200).error, AssertionError)


def test_finds_unexpected_message_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message kind that raises an undocumented exception is found."""
    monkeypatch.setattr("plugwasm._isolation.remote_guest.RemoteGuest.no_room", raise_key_error)
    assert isinstance(first_finding("workers", 300).error, KeyError)


def test_finds_reused_pool_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """State left in a reused slot of the pool is found."""
    from tests.support.kernel_rig import Rig

    honest = Rig.__init__

    def used(self: Any, max_pages: int = 16, fuel: bool = False, pooled: bool = False) -> None:
        honest(self, max_pages, fuel, pooled)
        if pooled:
            self.kernel.heap[1000:1001] = b"x"

    monkeypatch.setattr(Rig, "__init__", used)
    first_finding("kernel", 5)


# ---- bugs that were found this way ---------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"wasm": "\ud800"},
        {"memory": "\ud800"},
        {"timeout_ms": "\ud800"},
        {"allowed_hosts": "\ud800"},
        {"\ud800": 1},
    ],
    ids=ascii,
)
def test_lone_surrogate_in_manifest(fields: dict[str, Any]) -> None:
    """A lone surrogate in place of another type is a manifest error."""
    with pytest.raises(ManifestError):
        parse({"wasm": [{"path": "m"}], **fields})


def test_empty_block_is_writable() -> None:
    """The memory of an empty block can be written like any other."""

    def write(
        plugin: plugwasm.CurrentPlugin, args: list[plugwasm.Val], results: list[plugwasm.Val]
    ) -> None:
        memory = plugin.memory(plugin.memory_at_offset(0))
        assert not memory.readonly
        memory[:] = b""

    function = plugwasm.Function(None, "write", [], [], write)
    text = b'(module (import "extism:host/user" "write" (func $f)) (func (export "run") (call $f)))'
    with plugwasm.Plugin(text, functions=[function]) as plugin:
        plugin.call("run")


@pytest.mark.parametrize(
    "addresses", [[], ["127.0.0.1"]], ids=["does not resolve", "refuses the connection"]
)
def test_failed_request_keeps_nothing(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed request keeps nothing alive."""

    def resolve(host: str, port: int) -> list[str]:
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return addresses

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        port = unused.getsockname()[1]
        monkeypatch.setattr("plugwasm._http.connection.look_up", resolve)
        text = guest(
            export(
                "run",
                f'(drop (call $http_request <<{{"url":"http://a.test:{port}/"}}>> (i64.const 0)))',
            )
        )
        plugin = plugwasm.Plugin(
            manifest(text, allowed_hosts=["a.test", "127.0.0.1"]), functions=()
        )
        with pytest.raises(plugwasm.EgressError) as raised:
            plugin.call("run")
        kept = weakref.ref(plugin)
        gc.disable()
        try:
            del raised, plugin
            assert soon(lambda: kept() is None), "only the garbage collector would free it"
        finally:
            gc.enable()


# ---- what finds them -----------------------------------------------------------------------------


def subject(check: Callable[[bytes], None]) -> Any:
    return SimpleNamespace(
        __name__="fuzz.planted",
        __doc__="Nothing.",
        SEEDS=[],
        SIZES=(0, 8),
        COVERED=[],
        check=check,
        describe=repr,
    )


def test_finding_is_shrunk() -> None:
    """A finding is minimized."""

    def check(data: bytes) -> None:
        assert not (b"bad" in data and data[:1] > b"\x10")

    found = Session(subject(check)).run_case(b"some bytes, then bad ones, and others")
    assert found is not None
    assert found.data == b"bad"


def test_finding_is_unique_and_repeatable(tmp_path: Path) -> None:
    """Each place is one finding, and its file reproduces it."""

    def check(data: bytes) -> None:
        if b"a" in data:
            raise KeyError("a")
        if b"b" in data:
            raise KeyError("b")

    session = Session(subject(check))
    session.run([b"1", b"a1", b"2a", b"b3", b"ba"])
    assert session.executions == 5
    assert sorted(finding.data for finding in session.findings.values()) == [b"a", b"b"]
    for finding in session.findings.values():
        path = save(finding, session.harness, tmp_path)
        assert path.read_bytes() == finding.data
        assert "KeyError" in path.with_suffix(".txt").read_text()


def test_dropped_exception_is_finding() -> None:
    """An exception that Python would only print is a finding."""

    class Loud:
        def __del__(self) -> None:
            raise KeyError("in a finalizer")

    found = Session(subject(lambda data: Loud() and None)).run_case(b"")
    assert found is not None
    assert isinstance(found.error, DroppedError)


def test_a_warning_is_a_finding() -> None:
    found = Session(
        subject(lambda data: warnings.warn("left open", ResourceWarning, stacklevel=1))
    ).run_case(b"")
    assert found is not None
    assert isinstance(found.error, ResourceWarning)


def test_timeout_is_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A case that takes too long is a finding."""
    monkeypatch.setattr("fuzz.session.SLOW", 0.0)
    found = Session(subject(lambda data: None)).run_case(b"")
    assert found is not None
    assert isinstance(found.error, TooSlowError)


CRASHES = """
import os, signal, time
SEEDS, SIZES, COVERED = [b"fine", b"bad one", b"fine too"], (0, 4), []
def check(data):
    if data.startswith(b"bad"):
        {}
def describe(data):
    return repr(data)
"""


@pytest.mark.parametrize(
    ("how", "why"),
    [("os.kill(os.getpid(), signal.SIGSEGV)", "ended with -11"), ("time.sleep(60)", "hung")],
    ids=["crash", "hang"],
)
def test_crash_input_is_kept(
    how: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An input that crashes the process is kept, and the run continues."""
    (tmp_path / "planted_harness.py").write_text(CRASHES.format(how))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(watch, "HANG", 1.0)
    monkeypatch.setattr(watch, "CRASHES", 1)
    outcome = watch.watch(
        "planted_harness",
        seed=1,
        seconds=None,
        executions=50,
        guided=False,
        folder=tmp_path / "found",
    )
    assert [Path(path).read_bytes() for path in outcome.findings] == [b"bad one"]
    assert why in Path(outcome.findings[0]).with_suffix(".txt").read_text()


def test_seed_is_reproducible() -> None:
    """A seed gives the same inputs again, and another seed gives others."""

    def some(seed: int) -> list[bytes]:
        return list(itertools.islice(inputs.mutate_randomly([b"seed"], (0, 9), seed), 50))

    assert some(5) == some(5)
    assert some(5)[0] == some(6)[0] == b"seed"
    assert some(5)[1:] != some(6)[1:]


def test_decisions_stay_in_range() -> None:
    """Decisions are always one of their alternatives, also when the bytes are used up."""
    chance = random.Random(3)
    for _ in range(300):
        choices = Choices(chance.randbytes(chance.randint(0, 40)))
        for end in (1, 2, 3, 255, 256, 257, 70_000):
            assert 0 <= choices.below(end) < end
        assert choices.pick("abc") in "abc"
        assert choices.integer(2) < 65536
        choices.splice(b"", [b"token"])
        choices.splice(b"base", [b"token"])
        assert not choices or choices.rest()
        assert (choices.below(9), choices.pick("abc"), choices.take(3), choices.rarely(2)) == (
            0,
            "a",
            b"",
            False,
        )


def test_cli_runs_harness_and_input(tmp_path: Path) -> None:
    """The command line runs a harness, and a single input again."""

    def run(*arguments: str) -> str:
        result = subprocess.run(
            [sys.executable, "-m", "fuzz", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout

    out = run(
        "urls", "--executions", "20", "--seed", "4", "--unguided", "--findings", str(tmp_path)
    )
    assert "seed 4" in out
    assert "20 executions, no findings" in out
    (tmp_path / "input").write_bytes(b"\0\0http://good.test/")
    out = run("urls", str(tmp_path / "input"))
    assert "'http://good.test/'" in out
    assert "holds: A URL that the egress policy grants" in out


def test_uncounted_values_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values that are not counted are noticed."""
    monkeypatch.setattr(harness("typed"), "_LIMITS", plugwasm.Limits(decoded_values=None))
    assert isinstance(first_finding("typed", 3000).error, AssertionError)
