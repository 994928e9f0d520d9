"""What came of the cases, by plugin and host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .hosts import Host, WrongResultError
from .table import Case, read_cases

if TYPE_CHECKING:
    from .implementations import Implementation


class Outcome(msgspec.Struct, frozen=True):
    """The cases by their names; what failed or was left out with the reason."""

    passed: list[str]
    failed: dict[str, str]
    left_out: dict[str, str]


class PluginResults(msgspec.Struct, frozen=True):
    """A plugin on all hosts, by their names."""

    name: str
    language: str
    kit: str
    package: str
    bytes: int
    unsupported: dict[str, str]
    hosts: dict[str, Outcome]

    @classmethod
    def of(
        cls, implementation: Implementation, size: int, outcomes: dict[str, Outcome]
    ) -> PluginResults:
        return cls(
            name=implementation.name,
            language=implementation.language,
            kit=implementation.kit,
            package=implementation.package,
            bytes=size,
            unsupported=implementation.unsupported,
            hosts=outcomes,
        )


def left_out(case: Case, implementation: Implementation, host: Host) -> str | None:
    """Return why the case cannot be run, or None."""
    for need in sorted(case.needs):
        if need not in implementation.supports:
            return implementation.unsupported[need]
        if need in host.lacks:
            return host.lacks[need]
    if case.vars:
        return host.lacks.get("vars")
    return None


def run_all(wasm: bytes, implementation: Implementation, host: Host, server: str) -> Outcome:
    """Run all cases."""
    outcome = Outcome([], {}, {})
    for case in read_cases():
        if reason := left_out(case, implementation, host):
            outcome.left_out[case.name] = reason
            continue
        try:
            host.run(wasm, implementation.wasi, case, server)
        except WrongResultError as error:
            outcome.failed[case.name] = str(error)
        except Exception as error:  # the host does not even make the plugin
            outcome.failed[case.name] = f"{type(error).__name__}: {error}"
        else:
            outcome.passed.append(case.name)
    return outcome
