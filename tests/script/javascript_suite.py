"""ECMAScript's tests (Test262) and those of QuickJS, run as scripts.

    python -m tests.script.javascript_suite [FOLDER ...]

Test262 comes from the sources of SpiderMonkey that Debian keeps, the others from Debian's sources of
QuickJS; both are pinned by digest, and kept in a cache folder. Each test runs in an instance of its
own, by an indirect `eval`.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

from plugwasm import CallError, Limits, Plugin, ScriptError, script


@dataclass(frozen=True)
class Archive:
    """Sources that Debian keeps in a stable release, with the folder of the tests in them."""

    url: str
    sha256: str
    tests: str


_POOL = "https://deb.debian.org/debian/pool/main/"
TEST262 = Archive(
    _POOL + "m/mozjs128/mozjs128_128.14.0.orig.tar.xz",
    "41cca35149710ce45fbabc5fefcf86a01fdf833fdb783941964fca3a55fb72dd",
    "js/src/tests/test262",
)
QUICKJS = Archive(
    _POOL + "q/quickjs/quickjs_2025.04.26.orig.tar.xz",
    "ec81da5b3249ed648dbc7df4a1654988910e66a118d9b71cb63534216efcfbbe",
    "tests",
)
FOLDERS = ("language", "built-ins", "annexB")
PASSED, SKIPPED, FAILED = "passed", "skipped", "failed"
KNOWN_FAILURES = Path(__file__).with_name("test262_known.txt")
QUICKJS_FILES = ("test_language", "test_builtin", "test_closure", "test_loop", "test_bigint")

ABSENT = {
    "modules": "scripts that import others are bundled first",
    "realms": "`$262.createRealm`: a script has one realm",
    "threads": "`Atomics`, agents: a script has one thread",
    "IsHTMLDDA": "an object of browsers",
    "Temporal": "not in ECMAScript 2024",
    "ShadowRealm": "not in ECMAScript 2024",
    "decorators": "not in ECMAScript 2024",
    "Intl": "ECMA-402 is another standard",
    "tail-call-optimization": "no engine but one has it",
    "gc": "a host that collects garbage when the test says so",
}
"""What tests need that is not here, and why not."""
_FEATURES = {
    "cross-realm": "realms",
    "Atomics": "threads",
    "Atomics.waitAsync": "threads",
    "Atomics.pause": "threads",
    "IsHTMLDDA": "IsHTMLDDA",
    "Temporal": "Temporal",
    "ShadowRealm": "ShadowRealm",
    "decorators": "decorators",
    "tail-call-optimization": "tail-call-optimization",
    "host-gc-required": "gc",
    "FinalizationRegistry.prototype.cleanupSome": "gc",
    "dynamic-import": "modules",
    "import-attributes": "modules",
    "import.meta": "modules",
}

_RUNNER = r"""
const evaluate = eval, { Promise, String } = globalThis;
globalThis.reportCompare = () => {};
globalThis.print = () => {};
globalThis.$262 = {
    __proto__: null,
    global: globalThis,
    gc() {},
    evalScript: (text) => evaluate(text),
    detachArrayBuffer: (buffer) => { buffer.transfer(); return null; },
};
const nameOf = (error) => String(error?.constructor?.name ?? error);
export function run(test) {
    let done = () => {};
    const result = test.isAsync
        ? new Promise((resolve) => {
            globalThis.$DONE = (error) => resolve(error === undefined ? "ok" : "threw " + nameOf(error) + ": " + String(error));
        })
        : "ok";
    try {
        evaluate(test.harness);
    } catch (error) {
        return "harness " + String(error);
    }
    try {
        evaluate(test.source);
    } catch (error) {
        return "threw " + nameOf(error) + ": " + String(error);
    }
    return result;
}
"""


def known_failures() -> dict[str, str]:
    """Return the tests of Test262 that fail, and why."""
    found, reason = {}, ""
    for line in KNOWN_FAILURES.read_text().splitlines():
        if line.startswith("# "):
            reason = line[2:]
        elif line:
            found[line] = reason
    return found


def fetch(archive: Archive) -> Path:
    """Return the folder of the tests, unpacked in the cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plugwasm-ci"
    folder = cache / f"{Path(archive.tests).name}-{archive.sha256[:16]}"
    if not folder.exists():
        with urlopen(archive.url, timeout=60) as answer:
            content = answer.read()
        if hashlib.sha256(content).hexdigest() != archive.sha256:
            raise OSError(f"{archive.url} does not have the pinned digest")
        part = folder.with_suffix(f".{os.getpid()}")
        _unpack(content, archive.tests, part)
        part.rename(folder)
    return folder


def _unpack(content: bytes, tests: str, into: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:xz") as files:
        for member in files:
            path = member.name.partition("/")[2]
            if member.isfile() and path.startswith(f"{tests}/") and ".." not in path.split("/"):
                source = files.extractfile(member)
                assert source is not None
                target = into / path.removeprefix(f"{tests}/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read())


@dataclass
class Test:
    """A test, and what its head says of it."""

    source: str
    flags: set[str] = field(default_factory=set)
    features: set[str] = field(default_factory=set)
    includes: list[str] = field(default_factory=list)
    negative: str | None = None

    __test__ = False

    @property
    def absent(self) -> str | None:
        """What it needs that is not here."""
        if "module" in self.flags:
            return "modules"
        for feature in sorted(self.features):
            if feature in _FEATURES:
                return _FEATURES[feature]
            if feature.startswith("Intl"):
                return "Intl"
        if "$262.createRealm" in self.source:
            return "realms"
        if "$262.agent" in self.source:
            return "threads"
        if "IsHTMLDDA" in self.source:
            return "IsHTMLDDA"
        if re.search(r"\bimport\s*(\.\s*\w+\s*)?\(", self.source):
            return "modules"
        return None


_HEAD = re.compile(r"/\*---(.*?)---\*/", re.S)
_LIST = re.compile(
    r"^[ \t]*(flags|features|includes):\s*(?:\[([^\]]*)\]|((?:\n\s*-[^\n]*)+))", re.M
)


def read_test(source: str) -> Test:
    """Return a test with what its head says."""
    test = Test(source)
    head = _HEAD.search(source)
    if head is None:
        return test
    for found in _LIST.finditer(head[1]):
        items = [one.strip(" -") for one in re.split(r"[,\n]", found[2] or found[3] or "")]
        items = [one for one in items if one]
        if found[1] == "includes":
            test.includes = items
        else:
            getattr(test, found[1]).update(items)
    negative = re.search(r"^[ \t]*negative:[ \t]*\n((?:[ \t]+[^\n]*\n?)+)", head[1], re.M)
    if negative is not None:
        kind = re.search(r"type:\s*(\w+)", negative[1])
        test.negative = kind[1] if kind else None
    return test


class Suite:
    """Test262, ready to run."""

    def __init__(self) -> None:
        self.folder = fetch(TEST262)
        self.harness = self._read_harness()
        limits = Limits(timeout=10, memory_bytes=256 * 2**20, stack_bytes=2**20)
        self.compiled = script("javascript", _RUNNER, name="runner.js", limits=limits)

    def _read_harness(self) -> dict[str, str]:
        """Return the files that tests include: SpiderMonkey keeps them together in `shell.js`."""
        files: dict[str, str] = {}
        for shell in sorted(self.folder.rglob("shell.js")):
            parts = re.split(r"^// file: (\S+)\n", shell.read_text(errors="replace"), flags=re.M)
            for name, text in zip(parts[1::2], parts[2::2], strict=True):
                # What a script declares at its top stays; what `eval` declares with these does not.
                text = re.sub(r"^(let|const)\b", "var", text, flags=re.M)
                text = re.sub(r"^class (\w+)", r"var \1 = class \1", text, flags=re.M)
                files.setdefault(name, text)
        return files

    def names(self, folders: Iterable[str]) -> Iterator[str]:
        """Yield the names of the tests in folders."""
        for folder in folders:
            for file in sorted((self.folder / folder).rglob("*.js")):
                if file.name not in ("shell.js", "browser.js") and "_FIXTURE" not in file.name:
                    yield file.relative_to(self.folder).with_suffix("").as_posix()

    def run(self, name: str) -> str:
        """Run a test, and return how it ended: passed, skipped or failed, and why."""
        file = self.folder / f"{name}.js"
        try:
            source = file.read_bytes().decode()
        except UnicodeDecodeError:
            return f"{FAILED}: it is not UTF-8"
        return self.run_test(read_test(source))

    def run_test(self, test: Test) -> str:
        """Run what was read."""
        if test.absent:
            return f"{SKIPPED}: {test.absent}"
        includes = [] if "raw" in test.flags else ["assert.js", "sta.js", *test.includes]
        missing = [one for one in includes if one not in self.harness]
        if missing:
            return f"{FAILED}: there is no {missing[0]}"
        document = {
            "harness": "\n".join(self.harness[one] for one in includes),
            "source": test.source,
            "isAsync": "async" in test.flags,
        }
        with Plugin(self.compiled) as plugin:
            try:
                ended = plugin.call("run", document, returns=str)
            except CallError as error:
                ended = f"{type(error).__name__}: {error.message[:200]}"
        return _judge(ended, test.negative)


def _judge(ended: str, negative: str | None) -> str:
    if negative is None:
        return PASSED if ended == "ok" else f"{FAILED}: {ended[:200]}"
    if ended.startswith(f"threw {negative}:"):
        return PASSED
    return f"{FAILED}: expected {negative}, got {ended[:200]}"


def run_quickjs() -> dict[str, str]:
    """Run the tests of QuickJS: each function `test…` in a script of its own."""
    folder = fetch(QUICKJS)
    found = {}
    for name in QUICKJS_FILES:
        text = (folder / f"{name}.js").read_text()
        text = re.sub(r"^\w+\(.*\);$", "", text, flags=re.M)  # the calls of all tests
        parts = re.split(r"^(?=function )", text, flags=re.M)
        tests = {
            one[1]: part for part in parts if (one := re.match(r"function (test\w*)\(\)", part))
        }
        rest = "".join(part for part in parts if part not in tests.values())
        for test, part in tests.items():
            called = "".join(tests[one] for one in tests if f"{one}()" in part.partition("\n")[2])
            source = f"{rest}{called}{part}\nmodule.exports = {{ {test} }};"
            found[f"{name}/{test}"] = _run_function(source, test)
    return found


def _run_function(source: str, name: str) -> str:
    try:
        with Plugin(script("javascript", source, limits=Limits(timeout=30))) as plugin:
            plugin.call(name)
    except (ScriptError, CallError) as error:
        return f"{FAILED}: {error.message.splitlines()[0][:200]}"
    return PASSED


def main(arguments: list[str]) -> None:
    """Run the tests of the folders that are named, or of all, and print counts by folder."""
    began = time.process_time()
    counts: dict[str, Counter[str]] = {}
    if not arguments:
        for name, result in run_quickjs().items():
            _count(counts, "QuickJS's own", name, result)
    suite = Suite()
    for name in suite.names(arguments or FOLDERS):
        _count(counts, "/".join(name.split("/")[:2]), name, suite.run(name))
    for folder, count in counts.items():
        print(f"{folder:40} {count[PASSED]:6} {count[FAILED]:6} {count[SKIPPED]:6}")
    print(dict(sum(counts.values(), Counter())), f"{time.process_time() - began:.0f} s")


def _count(counts: dict[str, Counter[str]], folder: str, name: str, result: str) -> None:
    kind = result.partition(":")[0]
    counts.setdefault(folder, Counter())[kind] += 1
    if kind == FAILED:
        print(f"{name}: {result}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
