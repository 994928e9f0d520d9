"""Tenants, their scripts, and calls. Nothing here knows of HTTP."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

import plugwasm
import plugwasm.aio
from plugwasm.observing import Observer

from .quotas import Meter, Quota, Refused

Language = Literal["javascript", "python"]
LOG_CHARACTERS = 1000


@dataclass(frozen=True)
class Tenant:
    """A customer, and what the operator grants to its scripts. Scripts decide none of it.

    Attributes:
        name: For logs and metrics.
        key: What the customer authenticates with.
        functions: Host functions that its scripts may call. Made with `register=False`.
        config: What its scripts can read.
        allowed_hosts: Where its scripts may send HTTP requests.
    """

    name: str
    key: str = field(repr=False)
    functions: Sequence[plugwasm.Function] = ()
    config: Mapping[str, str] = field(default_factory=dict)
    allowed_hosts: Sequence[str] = ()
    quota: Quota = field(default_factory=Quota)


@dataclass(frozen=True)
class Script:
    """A script that a tenant keeps, and the functions that it exports."""

    language: Language
    source: bytes = field(repr=False)
    functions: tuple[str, ...] = ()


class ScriptNotFound(Refused):
    """The tenant has no such script."""


class TooManyScripts(Refused):
    """The tenant may not keep another script."""


class OutputRefused(Refused):
    """A function returned something that the service does not pass on."""


class Account:
    """What the service keeps for a tenant: its scripts, its log, and what it has used."""

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        self.quota = quota = tenant.quota
        self.meter = Meter(quota)
        self.scripts: dict[str, Script] = {}
        self.log = TenantLog(tenant.name, quota.log_lines)
        self._egress = plugwasm.Egress(max_concurrent=4, max_per_second=20)
        self._limits = plugwasm.Limits(
            timeout=quota.deadline,
            memory_bytes=quota.memory_bytes,
            log_lines_per_second=20,
            log_bytes_per_second=20_000,
        )

    def check_room(self, name: str) -> None:
        """Raise `TooManyScripts` if the tenant may not keep a script of this name."""
        if name not in self.scripts and len(self.scripts) >= self.quota.scripts:
            raise TooManyScripts(f"you have {len(self.scripts)} scripts: delete one first")

    def load(
        self, language: Language, source: bytes, observe: Iterable[Observer]
    ) -> plugwasm.CompiledPlugin:
        """Load a script. This runs it, so the time is charged."""
        with self.meter.metered():
            return plugwasm.script(
                language,
                source,
                # `logging` keeps each logger for ever, so tenants must not choose their names.
                name=self.tenant.name,
                output="json",
                functions=self.tenant.functions,
                config=self.tenant.config,
                allowed_hosts=self.tenant.allowed_hosts,
                limits=self._limits,
                egress=self._egress,
                observe=[self.meter, *observe],
            )


class TenantLog(logging.Handler):
    """The last lines that the scripts of a tenant have logged."""

    def __init__(self, tenant: str, lines: int) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=lines)
        self._logger = logging.getLogger(f"plugwasm.plugin.{tenant}")
        self._logger.addHandler(self)
        self._logger.setLevel("INFO")
        self._logger.propagate = False  # what strangers write stays out of the service's own log

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.getMessage()[:LOG_CHARACTERS]}")

    def close(self) -> None:
        self._logger.removeHandler(self)
        super().close()


class ScriptService:
    """Runs scripts of tenants, each within its quota.

    Args:
        tenants: The customers. A real service has them, and their scripts, in a database.
        observe: Observers of all calls, such as `plugwasm.otel.OpenTelemetry()`.
        loaded_scripts: How many scripts are kept ready to be called.
    """

    def __init__(
        self,
        tenants: Iterable[Tenant],
        *,
        observe: Sequence[Observer] = (),
        loaded_scripts: int = 500,
    ) -> None:
        self._observers = observe
        self._accounts = {_digest(tenant.key.encode()): Account(tenant) for tenant in tenants}
        self._loaded = LoadedScripts(loaded_scripts)

    def authenticate(self, key: str) -> Account | None:
        """Return the account of the tenant that has this key. Found by its digest, in a time that
        says nothing about the key.
        """
        return self._accounts.get(_digest(key.encode("utf-8", "replace")))

    async def put(self, account: Account, name: str, language: Language, source: bytes) -> Script:
        """Load a script, and keep it if that succeeds.

        Raises:
            TooManyScripts: The tenant may not keep another one.
            QuotaExceeded: The tenant may not load one now.
            plugwasm.ScriptError: The script is wrong.
            plugwasm.CallError: A limit ended it.
        """
        account.check_room(name)
        script = Script(language, source)
        with account.meter.admit():
            compiled = await self._ready(account, script)
        account.check_room(name)  # others may have been put meanwhile
        functions = tuple(sorted(export.name for export in compiled.exports))
        account.scripts[name] = script = Script(language, source, functions)
        return script

    async def call(self, account: Account, name: str, function: str, argument: bytes) -> bytes:
        """Call a function of a script with JSON, and return JSON.

        The argument is not parsed here, but by the script's interpreter, in the sandbox.

        Raises:
            ScriptNotFound: There is no such script.
            QuotaExceeded: The tenant may not call it now.
            OutputRefused: The output is too long, or is not JSON.
            plugwasm.Error: The call failed.
        """
        script = account.scripts.get(name)
        if script is None:
            raise ScriptNotFound(name)
        with account.meter.admit():
            compiled = await self._ready(account, script)
            # A new instance for each call: it starts as loading left it, and knows no other call.
            async with plugwasm.Plugin(compiled) as plugin:
                output: bytes = await plugin.call_async(function, argument)
        return _check_output(output, account.quota.output_bytes)

    async def _ready(self, account: Account, script: Script) -> plugwasm.CompiledPlugin:
        """Return a script that can be called. Loading takes milliseconds, in a thread."""
        # Two tenants with the same source do not share it: their grants differ.
        digest = _digest(account.tenant.name.encode(), script.language.encode(), script.source)
        compiled = self._loaded.get(digest)
        if compiled is None:
            compiled = await plugwasm.aio.run(
                lambda: account.load(script.language, script.source, self._observers)
            )
            self._loaded.add(digest, account, compiled)
        return compiled

    def close(self) -> None:
        """Let go of everything. Calls that are under way end by themselves."""
        self._loaded.clear()
        for account in self._accounts.values():
            account.log.close()


class LoadedScripts:
    """The scripts that are ready to be called: those used last, of all tenants together.

    A tenant has no more of them than it may keep scripts, so those of others stay when one loads
    new versions all the time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._loaded: OrderedDict[str, tuple[Account, plugwasm.CompiledPlugin]] = OrderedDict()

    def get(self, digest: str) -> plugwasm.CompiledPlugin | None:
        if digest not in self._loaded:
            return None
        self._loaded.move_to_end(digest)
        return self._loaded[digest][1]

    def add(self, digest: str, account: Account, compiled: plugwasm.CompiledPlugin) -> None:
        self._loaded[digest] = account, compiled
        own = [one for one, (owner, _) in self._loaded.items() if owner is account]
        if len(own) > account.quota.scripts:
            del self._loaded[own[0]]
        if len(self._loaded) > self._most:
            self._loaded.popitem(last=False)

    def clear(self) -> None:
        self._loaded.clear()


def _check_output(output: bytes, most: int) -> bytes:
    if len(output) > most:
        raise OutputRefused(f"the output has {len(output)} bytes, and {most} are allowed")
    try:
        output.decode()
        msgspec.json.decode(output, type=msgspec.Raw)  # reads over it, and builds nothing
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise OutputRefused("the output is not JSON") from error
    return output


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
