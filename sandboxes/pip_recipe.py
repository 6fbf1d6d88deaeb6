"""How a Python environment of some years ago is installed today.

All requirements go in at once, without their dependencies: they are a list of everything that was there. Where pip
refuses one, it is built with the tools that are there, else relaxed to the nearest version that can be had, else
dropped, and pip is asked again. Then come the extras and what is missing, both with dependencies, under the constraint
of what is there. A fault of the network or the disk is nobody's requirement's fault: `SandboxError`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import tenacity
from packaging.version import Version

from sandboxes.base import SandboxError
from sandboxes.pip_output import FaultKind, PipFault, fault_of, in_a_few_words, name_of, pin_of, ranked, repinned
from sandboxes.python_spec import PythonSpec

Run = Callable[[Sequence[str]], tuple[int, str]]
"""Runs a command inside: exit code and output. Raises SandboxError."""
PIP = ("python3", "-m", "pip")
TOOLS = ("pip==21.3.1", "setuptools==57.5.0", "wheel==0.37.1")
"""The last pip for Python 3.6, and the last setuptools with use_2to3."""
CYTHON = "cython<3"
"""What old extension modules are written in."""
PYTHONS = frozenset((3, minor) for minor in range(6, 12))
"""What these tools run on."""
OWN = frozenset({"pip", "pkg-resources", "distribute"})
"""Never installed as a requirement: the recipe's own pip, and what is part of setuptools."""
OLDEST_PYTEST = Version("3.5")
"""The reporter in the sandbox needs what this one has."""
VERSIONS_TRIED = 3
"""Of a package that cannot be built."""
ATTEMPTS, WAIT_S = 3, 3
LINES, PINS, BUILDS = "/tmp/requirements.txt", "/tmp/pins.txt", "/tmp/builds.txt"
HAS_COMPILER = "command -v gcc || command -v cc || ! command -v apt-get"
PROBE = (*PIP, "index", "versions", "pip")

OPEN_UP = """
import os, sys
for path in {os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, sys.executable)}:
    while path != "/":
        path = os.path.dirname(path)
        if os.stat(path).st_mode & 0o011 != 0o011:
            os.chmod(path, os.stat(path).st_mode | 0o011)
"""
"""The folders above Python can be passed by every user."""
WRITE = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"
LOOK = """
import json, platform, pkg_resources
there = {d.key: d for d in pkg_resources.working_set}
wanted = {}
for dist in there.values():
    try:
        needs = dist.requires()
    except Exception:
        continue
    for need in needs:
        if need.key not in there:
            wanted.setdefault(need.key, []).append(str(need).split(";")[0])
print(json.dumps({
    "python": platform.python_version(),
    "packages": {d.project_name: d.version for d in there.values()},
    "missing": wanted,
}))
"""
FINISH = """
import compileall, os, shutil, sys, sysconfig
scripts, libraries = sysconfig.get_path("scripts"), {sysconfig.get_path(name) for name in ("purelib", "platlib")}
if scripts not in os.environ.get("PATH", "").split(":"):
    for name in sorted(os.listdir(scripts)):
        link = os.path.join("/usr/local/bin", name)
        if not os.path.lexists(link) and not shutil.which(name):
            os.symlink(os.path.join(scripts, name), link)
for top in libraries:
    compileall.compile_dir(top, quiet=2)
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            wanted = mode | (0o055 if name in folders else 0o044)
            if mode != wanted and not os.path.islink(path):
                os.chmod(path, wanted)
"""
"""For a user who is not root: scripts on the path, compiled files that cannot be written later, readable all of it."""


class NoCompiler(Exception):
    """Something has to be compiled, and the image has no C compiler."""


class _Transient(Exception):
    """The network failed, and may not the next time."""


class _Look(TypedDict):
    """What there is; what is missing, with the requirements that name it."""

    python: str
    packages: dict[str, str]
    missing: dict[str, list[str]]


@dataclass(frozen=True)
class Installed:
    """What came out of it."""

    python: str = ""
    """The exact version."""
    relaxed: dict[str, str] = field(default_factory=dict)
    """Requirement: the version that was taken instead."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Requirement: why it cannot be had."""
    added: tuple[str, ...] = ()
    """`name==version` of what was missing."""
    packages: tuple[str, ...] = ()
    """`name==version` of all that is there."""


def check_python(python: str) -> None:
    """Raises SandboxError for a minor version that the recipe is not for."""
    if tuple(int(part) for part in python.split(".")) not in PYTHONS:
        raise SandboxError(f"environments are made for Python 3.6 to 3.11, not {python}")


class PipRecipe:
    """One installation, by running pip inside."""

    def __init__(self, run: Run, wait_s: float = WAIT_S) -> None:
        self._run = run
        self._wait_s = wait_s
        self._relaxed: dict[str, str] = {}
        self._dropped: dict[str, str] = {}
        self._candidates: dict[str, list[str]] = {}
        self._seen: _Look | None = None

    def install(self, spec: PythonSpec) -> Installed:
        """Make the environment. Raises SandboxError, and NoCompiler where one is needed first."""
        named = {name_of(line) for line in (*spec.requirements, *spec.extras)}
        tools = [*TOOLS, CYTHON] if spec.requirements or "cython" in named else TOOLS  # extras are not built with it
        self._bootstrap("cython" in named, tools)
        for line in spec.requirements:
            if name_of(line) in OWN:
                self._dropped[line] = "the recipe has its own"
        self._settle([line for line in spec.requirements if line not in self._dropped], ["--no-deps"])
        if "cython" not in named and CYTHON in tools:
            self._pip(["uninstall", "--yes", "cython"])
        self._install_extras([line for line in spec.extras if name_of(line) not in OWN])
        asked_for = set(self._packages())
        self._complete()
        self._finish()
        packages = self._packages()
        relaxed = {name_of(line) for line in self._relaxed}
        added = sorted(each for each in set(packages) - asked_for if name_of(each) not in relaxed)
        python = self._look()["python"]
        return Installed(python, self._relaxed, self._dropped, tuple(added), tuple(packages))

    def _bootstrap(self, cython_is_named: bool, tools: Sequence[str]) -> None:
        self._write(BUILDS, [] if cython_is_named else [CYTHON])
        code, output = self._pip(["install", *tools])
        if code:
            raise SandboxError(f"pip itself cannot be installed: {fault_of(output).why}")

    # ---- asking pip

    def _pip(self, arguments: Sequence[str]) -> tuple[int, str]:
        """Exit code and output; with patience where the network fails."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Transient),
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=tenacity.wait_exponential(self._wait_s),
            reraise=True,
        )
        try:
            return retrying(self._pip_once, arguments)
        except _Transient as error:
            raise SandboxError(f"the package index does not answer: {error}") from error

    def _pip_once(self, arguments: Sequence[str]) -> tuple[int, str]:
        self._seen = None
        code, output = self._run(["env", f"PIP_CONSTRAINT={BUILDS}", *PIP, *arguments])  # isolated builds heed it, too
        if code:
            fault = fault_of(output)
            if fault.kind is FaultKind.DISK:
                raise SandboxError(f"no space is left on {_disk(fault.subject)}")
            if fault.kind is FaultKind.NETWORK:
                raise _Transient(fault.why)
            if fault.kind is FaultKind.MISSING and not fault.versions:
                self._probe()
        return code, output

    def _probe(self) -> None:
        """Whether there is an index at all: pip says of one that fails that it has no versions."""
        code, output = self._run(PROBE)
        if code:
            raise _Transient(fault_of(output).why)

    def _write(self, path: str, lines: Sequence[str]) -> None:
        code, output = self._run(["python3", "-c", WRITE, path, "".join(f"{line}\n" for line in lines)])
        if code:
            raise SandboxError(f"cannot write in the build container: {in_a_few_words(output[-200:])}")

    # ---- all that was asked for, or what can be had of it

    def _settle(self, lines: Sequence[str], options: Sequence[str]) -> None:
        """Install lines together; those that cannot be had are relaxed or dropped."""
        wanted = {line: line for line in lines}
        while wanted:
            self._write(LINES, list(wanted.values()))
            code, output = self._pip(["install", *options, "-r", LINES])
            if not code:
                return
            fault = fault_of(output)
            self._look_for_compiler(fault)
            line = _line_of(fault, wanted)
            if line is None and len(wanted) > 1:  # pip does not say whose fault it is
                for each in wanted:
                    self._settle([each], options)
                return
            self._mend(wanted, line or next(iter(wanted)), fault, options)

    def _look_for_compiler(self, fault: PipFault) -> None:
        """Before anything is relaxed that could be built: raises NoCompiler where there is none, and one can be had."""
        if fault.kind is FaultKind.UNBUILDABLE and self._run(["sh", "-c", HAS_COMPILER])[0]:
            raise NoCompiler

    def _mend(self, wanted: dict[str, str], line: str, fault: PipFault, options: Sequence[str]) -> None:
        """Change or take out one line, so that the next attempt is another one."""
        if fault.kind is FaultKind.UNBUILDABLE:
            first = _imported(fault.why, wanted)
            if first and first != line:  # its set-up imports it
                self._settle([wanted.pop(first)], options)
                return
            if fault.isolated and self._built_with_what_is_there(wanted[line], options):
                del wanted[line]
                return
        if "--no-deps" in options and (version := self._next_version(line, wanted[line], fault)):
            wanted[line] = repinned(line, version)
            self._relaxed[line] = version
            return
        del wanted[line]
        self._relaxed.pop(line, None)
        self._dropped[line] = fault.why or fault.kind.value

    def _built_with_what_is_there(self, line: str, options: Sequence[str]) -> bool:
        return self._pip(["install", *options, "--no-build-isolation", line])[0] == 0

    def _next_version(self, line: str, now: str, fault: PipFault) -> str | None:
        """A version to try instead of what was asked for; None where there is none, or enough have been tried."""
        pin = pin_of(line)
        if pin is None or fault.kind not in (FaultKind.MISSING, FaultKind.UNBUILDABLE):
            return None
        if line not in self._candidates:
            unbuildable = fault.kind is FaultKind.UNBUILDABLE
            wheels = self._available(line, "--only-binary", ":all:")
            available = fault.versions or (self._available(line) if unbuildable else ())
            candidates = ranked(pin, available, frozenset(wheels), unbuildable)
            self._candidates[line] = candidates[:VERSIONS_TRIED]
        return self._candidates[line].pop(0) if self._candidates[line] else None

    def _available(self, line: str, *options: str) -> tuple[str, ...]:
        code, output = self._run([*PIP, "index", "versions", *options, name_of(line)])
        found = re.search(r"^Available versions: (.*)$", output, re.M)
        return tuple(found[1].split(", ")) if found and not code else ()

    # ---- with dependencies

    def _pins(self) -> list[str]:
        """The options that keep what is there as it is."""
        self._write(PINS, self._packages())
        return ["-c", PINS]

    def _install_extras(self, extras: Sequence[str]) -> None:
        """As asked for, over what is pinned where they say so."""
        if not extras:
            return
        self._write(LINES, extras)
        if self._pip(["install", *self._pins(), "-r", LINES])[0] == 0:
            return
        for extra in extras:
            code, output = self._pip(["install", *self._pins(), extra])
            if code and fault_of(output).kind is FaultKind.CONFLICT:
                self._settle([extra], ["--no-deps"])
            elif code:
                self._settle([extra], self._pins())

    def _complete(self) -> None:
        """Install what packages need and nobody listed, and pytest."""
        hopeless: set[str] = set()
        while missing := {key: needs for key, needs in self._missing().items() if key not in hopeless}:
            for key, needs in missing.items():
                self._add(key, needs)
            hopeless |= set(missing)
        found = [each for each in self._packages() if name_of(each) == "pytest"]
        if not found:
            self._add("pytest", ["pytest"])
        elif Version(found[0].partition("==")[2]) < OLDEST_PYTEST:
            self._must_run(*PIP, "install", f"pytest~={OLDEST_PYTEST}.0")
            self._relaxed[found[0]] = self._look()["packages"]["pytest"]

    def _add(self, key: str, needs: Sequence[str]) -> None:
        code, output = self._pip(["install", *self._pins(), *sorted(set(needs))])
        if code and fault_of(output).kind is FaultKind.CONFLICT:
            code, output = self._pip(["install", "--no-deps", needs[0]])
        if code:
            fault = fault_of(output)
            self._look_for_compiler(fault)
            self._dropped[needs[0]] = in_a_few_words(f"missing, and {fault.why}")

    def _missing(self) -> dict[str, list[str]]:
        return self._look()["missing"]

    def _packages(self) -> list[str]:
        packages = self._look()["packages"]
        return sorted((f"{name}=={version}" for name, version in packages.items()), key=str.lower)

    def _look(self) -> _Look:
        """Looked at again once pip has run."""
        if self._seen is None:
            code, output = self._run(["python3", "-W", "ignore", "-c", LOOK])
            if code:
                raise SandboxError(f"the environment cannot be looked at: {in_a_few_words(output[-200:])}")
            self._seen = json.loads(output.splitlines()[-1])
        return self._seen

    def _finish(self) -> None:
        self._must_run("python3", "-c", FINISH + OPEN_UP)
        importing = ("env", "-u", "PYTHONDONTWRITEBYTECODE", "python3", "-c", "import pytest, unittest.mock, asyncio")
        self._must_run(*importing)  # its modules of the standard library are compiled

    def _must_run(self, *argv: str) -> None:
        self._seen = None
        code, output = self._run(argv)
        if code:
            raise SandboxError(f"the environment is of no use: {in_a_few_words(output.strip()[-100:])}")


def _disk(path: str) -> str:
    if path.startswith("/tmp/host-cache"):
        return "the disk of the cache directory (REPO_AGENT_CACHE)"
    return "the Docker engine's disk"


def _line_of(fault: PipFault, wanted: dict[str, str]) -> str | None:
    """The line that a fault is about: several are there for a conflict, of which the last is taken."""
    if fault.kind is FaultKind.CONFLICT:
        names = {name_of(part) for part in re.split(r",? and |, ", fault.subject)}
        lines = [line for line in wanted if name_of(line) in names]
        return lines[-1] if lines else None
    subject = name_of(fault.subject)
    for line, now in wanted.items():
        found = name_of(line) == subject if subject else bool(fault.subject) and fault.subject in now
        if found:
            return line
    return None


def _imported(why: str, wanted: dict[str, str]) -> str | None:
    """The line of a package that another one's set-up imports."""
    found = re.search(r"No module named '?([\w.]+)", why)
    return next((line for line in wanted if found and name_of(line) == name_of(found[1])), None)
