"""`run_test.sh`: the commands that run a bug's tests, read as arguments of pytest. Nothing of it is ever executed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from suites.bugsinpy.bug import Rejected
from suites.bugsinpy.paths import is_safe_path, plain_path

_PYTHON = re.compile(r"python(?:[23](?:\.\d+)?)?")
_DOTTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_OPERATORS = frozenset(";&|<>")
_HARMLESS = re.compile(r"-[qsvxbfc]+|--(?:quiet|verbose|tb=\w+|capture=\w+)|-r[A-Za-z]+")
"""Options that change what is printed, or when a run stops, but not which tests are run."""


@dataclass(frozen=True)
class RunLine:
    """One command, read."""

    runner: str
    """As it is called: pytest, py.test, python3 -m pytest, python -m unittest, tox."""
    args: tuple[str, ...]


@dataclass(frozen=True)
class RunLines:
    """The commands of a `run_test.sh`, in their order."""

    lines: tuple[RunLine, ...]
    irregular: tuple[str, ...]

    @property
    def test_args(self) -> tuple[str, ...]:
        """Arguments of one run of pytest, each once."""
        return tuple(dict.fromkeys(arg for line in self.lines for arg in line.args))


def read_run_lines(text: str, test_files: Sequence[str]) -> RunLines:
    """Reads a `run_test.sh`; `test_files` (of bug.info) say where the module ends in a dotted name of unittest.

    Raises Rejected for everything that is not a plain run of tests by pytest, unittest or tox.
    """
    per_line = [list(_commands(line)) for line in text.splitlines() if not line.lstrip().startswith("#")]
    lines = tuple(_read(command, test_files) for commands in per_line for command in commands)
    if not lines:
        raise Rejected("run_test.sh has no command")
    return RunLines(lines, tuple(_irregular(per_line, lines, test_files)))


def _irregular(per_line: list[list[list[str]]], lines: Sequence[RunLine], test_files: Sequence[str]) -> Iterator[str]:
    args = [arg for line in lines for arg in line.args]
    words = {word.split("::")[0] for commands in per_line for command in commands for word in command}
    irregular = {
        "run_test.sh: several commands on one line": any(len(commands) > 1 for commands in per_line),
        "run_test.sh: several tests in one command": any(len(line.args) > 1 for line in lines),
        "run_test.sh: blank lines": not all(per_line),
        "run_test.sh: a path that is not in normal form": any(word != plain_path(word) for word in words),
        "run_test.sh: a test twice": len(set(args)) < len(args),
        "run_test.sh: a file that test_file does not list": any(a.split("::")[0] not in test_files for a in args),
    }
    yield from (phrase for phrase, holds in irregular.items() if holds)


def _commands(line: str) -> Iterator[list[str]]:
    """The words of each command of a line, split as a shell would."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="".join(sorted(_OPERATORS)))
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        words = list(lexer)
    except ValueError as error:
        raise Rejected(f"run_test.sh has a line that no shell reads ({error}): {line[:80]!r}") from None
    command: list[str] = []
    for word in [*words, ";"]:
        if word == ";":
            if command:
                yield command
            command = []
        elif word and set(word) <= _OPERATORS:
            raise Rejected(f"run_test.sh has a shell operator: {line[:80]!r}")
        else:
            command.append(word)


def _read(command: list[str], test_files: Sequence[str]) -> RunLine:
    runner, rest = _runner(command)
    given = [word for word in rest if not (word.startswith("-") and _HARMLESS.fullmatch(word))]
    if not given:
        raise Rejected(f"run_test.sh has a command that names no test: {_shown(command)}")
    if runner.endswith("unittest"):
        return RunLine(runner, tuple(_from_dotted(word, test_files) for word in given))
    return RunLine(runner, tuple(_checked(word) for word in given))


def _runner(command: list[str]) -> tuple[str, list[str]]:
    first, *rest = command
    if first in ("pytest", "py.test", "tox"):
        return first, rest
    if _PYTHON.fullmatch(first) and rest[:1] == ["-m"] and rest[1:2] in (["pytest"], ["unittest"]):
        return f"{first} -m {rest[1]}", rest[2:]
    raise Rejected(f"run_test.sh has a command that is not of pytest, unittest or tox: {_shown(command)}")


def _shown(command: list[str]) -> str:
    return repr(" ".join(command)[:80])


def _checked(word: str) -> str:
    if word.startswith(("-", "@")):
        raise Rejected(f"run_test.sh has an option that is not known: {word[:80]!r}")
    path, colons, inner = word.partition("::")
    if not is_safe_path(plain_path(path)) or not word.isprintable():
        raise Rejected(f"run_test.sh names an unsafe path: {word[:80]!r}")
    return f"{plain_path(path)}{colons}{inner}"


def _from_dotted(word: str, test_files: Sequence[str]) -> str:
    """`tests.test_a.TestB.test_c` as `tests/test_a.py::TestB::test_c`.

    The module is the longest of the bug's test files that the name begins with; a package is named with or without
    its `__init__`.
    """
    if word.endswith(".py"):
        return _checked(word)
    if not _DOTTED.fullmatch(word):
        raise Rejected(f"run_test.sh names a test that is no dotted name: {word[:80]!r}")
    for module, path in sorted(_modules(test_files), reverse=True, key=lambda each: len(each[0])):
        if f"{word}.".startswith(f"{module}."):
            inner = word[len(module) + 1 :]
            return "::".join([path, *inner.split(".")]) if inner else path
    raise Rejected(f"run_test.sh names a test of none of the test files: {word[:80]!r}")


def _modules(test_files: Sequence[str]) -> Iterator[tuple[str, str]]:
    for path in test_files:
        if path.endswith(".py"):
            module = path.removesuffix(".py").replace("/", ".")
            yield module, path
            if module.endswith(".__init__"):
                yield module.removesuffix(".__init__"), path
