"""Checks of what a run of pytest reports: every test with its outcome, the same everywhere."""

from __future__ import annotations

from sandboxes.base import Command, PytestRun
from sandboxes.conformance.checking import (
    Check,
    Place,
    messages,
    outcomes,
    pytest_run,
    python,
    require,
    same,
    still_works,
    tree_of,
)

KINDS = """
import pytest

@pytest.fixture
def broken():
    raise RuntimeError("no fixture")

@pytest.fixture
def unfinished():
    yield
    raise RuntimeError("no end")

def test_passes(): pass
def test_fails(): assert 1 == 2
def test_errors(broken): pass
def test_ends_badly(unfinished): pass
def test_skips(): pytest.skip("why")
@pytest.mark.xfail
def test_xfails(): assert False
@pytest.mark.xfail
def test_xpasses(): pass
@pytest.mark.xfail(strict=True)
def test_xpasses_strictly(): pass
"""
OUTCOMES = {
    "test_passes": "passed",
    "test_fails": "failed",
    "test_errors": "error",
    "test_ends_badly": "error",
    "test_skips": "skipped",
    "test_xfails": "xfailed",
    "test_xpasses": "xpassed",
    "test_xpasses_strictly": "failed",
}
KINDS_OF_FILES = {
    "tests/test_kinds.py": KINDS,
    "tests/test_broken.py": "import nothing_of_that_name\n",
    "tests/test_syntax.py": "def test_it(:\n",
    "tests/deep/test_class.py": """
import unittest, pytest

class TestPlain:
    @pytest.mark.parametrize("n", [1, 2])
    def test_one(self, n): assert n == 1

class TestUnit(unittest.TestCase):
    def test_unit(self): self.assertEqual({"a": [1, 2]}, {"a": [1, 3]})
""",
}


def each_test_is_reported_with_its_outcome(place: Place) -> None:
    """Passed, failed, error in a fixture, skipped, xfailed and xpassed are told apart, in pytest's order."""
    result = pytest_run(place.sandbox, {"test_kinds.py": KINDS})
    same("outcomes", list(outcomes(result).items()), list(OUTCOMES.items()))
    same("exit code and limits", (result.exit_code, result.hit), (1, frozenset()))


def tests_are_named_as_pytest_names_them(place: Place) -> None:
    """Ids are pytest's node ids from the tree's root; a file that cannot be collected is an error of its own name."""
    found = [(record.id, record.outcome) for record in pytest_run(place.sandbox, KINDS_OF_FILES).records]
    folder = "tests/deep/test_class.py"
    wanted = [(f"tests/test_kinds.py::{name}", outcome) for name, outcome in OUTCOMES.items()]
    wanted += [(f"{folder}::TestPlain::test_one[1]", "passed"), (f"{folder}::TestPlain::test_one[2]", "failed")]
    wanted += [(f"{folder}::TestUnit::test_unit", "failed")]
    broken = [("tests/test_broken.py", "error"), ("tests/test_syntax.py", "error")]
    same("tests of a tree with broken files", sorted(found), broken)  # pytest runs none then
    whole = {path: text for path, text in KINDS_OF_FILES.items() if (path, "error") not in broken}
    found = [(record.id, record.outcome) for record in pytest_run(place.sandbox, whole).records]
    same("tests", sorted(found), sorted(wanted))


def arguments_choose_the_tests(place: Place) -> None:
    """pytest gets the arguments of the run, and no tests at all is its exit code 5."""
    files = {"a/test_a.py": "def test_x(): pass\ndef test_y(): pass\n", "b/test_b.py": "def test_z(): pass\n"}
    chosen = pytest_run(place.sandbox, files, PytestRun(("a/test_a.py::test_y", "b")))
    same("tests", outcomes(chosen), {"test_y": "passed", "test_z": "passed"})
    none = pytest_run(place.sandbox, files, PytestRun(("-k", "nothing")))
    same("code and records", (none.exit_code, none.records), (5, ()))


def failures_can_end_a_run(place: Place) -> None:
    """With `max_failures` a run ends after so many failures; without, it runs everything."""
    files = {"test_it.py": "".join(f"def test_{n}(): assert {n} % 2\n" for n in range(6))}
    same("tests", list(outcomes(pytest_run(place.sandbox, files, PytestRun(max_failures=2)))), _numbered(3))
    same("tests", list(outcomes(pytest_run(place.sandbox, files))), _numbered(6))


def _numbered(count: int) -> list[str]:
    return [f"test_{number}" for number in range(count)]


def messages_hold_nothing_of_the_machine(place: Place) -> None:
    """No address, no path of the machine, no frame outside the tree: the same failure reads the same everywhere."""
    test = "import json, os\ndef test_it(tmp_path):\n    assert object() == (str(tmp_path), os.getcwd() + '/x')\n"
    test += "def test_frames():\n    json.loads('{')\n"
    first, again = (pytest_run(place.sandbox, {"t/test_it.py": test, "t/broken.py": "def f(:\n"}) for _ in range(2))
    message, frames = messages(first, 2)
    same("the second time", messages(again, 2), [message, frames])
    for wanted in ("at 0x...", "('/tmp/pytest-of-nobody/pytest-0/test_it0', 'x')"):
        require(wanted in message, f"no {wanted!r} in {message!r}")
    require("t/test_it.py:5: in test_frames" in frames and "JSONDecodeError" in frames, f"a failure reads {frames!r}")
    foreign = [line for line in frames.split("\n") if line.startswith(("/", "<frozen", ".."))]
    same("frames outside the tree", foreign, [])


def import_path_reaches_what_a_test_starts(place: Place) -> None:
    """The stated directories are on the import path of the tests, and of the programs that they start."""
    test = "import subprocess, lib\nask = ['python3', '-c', 'import lib; print(lib.x)']\n"
    test += "def test_it(): assert subprocess.check_output(ask) == b'5\\n' and lib.x == 5\n"
    tree = tree_of({"src/lib.py": "x = 5\n", "tests/test_it.py": test})
    result = place.sandbox.run(tree, Command(PytestRun(), pythonpath=("src",)))
    require(outcomes(result) == {"test_it": "passed"}, f"the test did not pass: {result.output}")


def forked_and_cold_runs_agree(place: Place) -> None:
    """A run in a fork of a ready interpreter and one in a new interpreter report the same, message by message."""
    for scoring in (False, True):
        for tree in (KINDS_OF_FILES, {"test_kinds.py": KINDS}, {"test_none.py": ""}):
            forked, cold = (
                pytest_run(place.sandbox, tree, PytestRun(scoring=scoring, cold=cold)) for cold in (False, True)
            )
            found, wanted = ([(r.id, r.outcome, r.message) for r in run.records] for run in (forked, cold))
            same("records of a forked run", found, wanted)
            same("exit code of a forked run", forked.exit_code, cold.exit_code)


def forked_and_cold_runs_have_the_same_surroundings(place: Place) -> None:
    """Arguments, import path, environment, limits, signals, random numbers: a test cannot tell which it is in."""
    results = [pytest_run(place.sandbox, {"test_it.py": SURROUNDINGS}, PytestRun(cold=cold)) for cold in (False, True)]
    forked, cold = ({record.id: record.message for record in result.records} for result in results)
    require(len(cold) > 10, f"the tests were not run: {results[1]}")
    for test, message in cold.items():
        same(f"{test} in a fork", forked.get(test), message)


def modules_of_the_tree_come_first(place: Place) -> None:
    """A tree's module is imported although the guest has one of that name in memory, pytest's own included."""
    names = ("shlex", "difflib", "queue")
    test = f"import {', '.join(names)}\ndef test_it(): assert {' + '.join(f'{name}.ours' for name in names)} == 3\n"
    ours = {f"{name}.py": "ours = 1\n" for name in names}
    same("outcomes", outcomes(pytest_run(place.sandbox, ours | {"test_it.py": test})), {"test_it": "passed"})
    test = "def test_it():\n    import shlex\n    assert shlex.split('a b') == ['a', 'b']\n"
    same("outcomes without them", outcomes(pytest_run(place.sandbox, {"test_it.py": test})), {"test_it": "passed"})


def only_the_named_tests_are_run(place: Place) -> None:
    """Of what is collected only the tests that a run names are run, by their ids."""
    test = "import pytest\n@pytest.mark.parametrize('n', [1, 2])\ndef test_n(n): pass\ndef test_nn(): assert 0\n"
    for scoring in (False, True):
        run = PytestRun(only=("test_it.py::test_n[2]",), scoring=scoring)
        result = place.sandbox.run(tree_of({"test_it.py": test}), Command(run))
        same("outcomes", {record.id: record.outcome for record in result.records}, {"test_it.py::test_n[2]": "passed"})
        require(not result.canaries_missing and not result.tampered, "canaries are left out")


def environment_is_that_of_a_new_interpreter(place: Place) -> None:
    """Variables that an interpreter reads when it starts have their effect on a run of pytest."""
    code = "import locale, sys; state = (hash('x'), sys.flags.optimize, locale.setlocale(locale.LC_ALL, ''))"
    tree = tree_of({"test_it.py": f"import pytest\ndef test_it():\n    {code}\n    pytest.fail(repr(state))\n"})
    for env in ({}, {"PYTHONHASHSEED": "1"}, {"PYTHONOPTIMIZE": "1"}, {"LC_ALL": "C"}):
        said = place.sandbox.run(tree, Command(("python3", "-c", f"{code}; print(state)"), env=env)).output.strip()
        (message,) = messages(place.sandbox.run(tree, Command(PytestRun(), env=env)), 1)
        require(said and said in message, f"under {env} a test has not {said!r}: {message!r}")


def end_of_the_process_ends_the_report(place: Place) -> None:
    """Where a test ends the process, its code is the exit code, and the tests before it are known."""
    test = "import os\ndef test_before(): pass\ndef test_ends(): os._exit(42)\ndef test_after(): pass\n"
    result = pytest_run(place.sandbox, {"test_it.py": test})
    same("code and outcomes", (result.exit_code, outcomes(result)), (42, {"test_before": "passed"}))


def broken_streams_do_not_return_into_the_runner(place: Place) -> None:
    """A target that breaks its process's streams breaks nothing after its run."""
    test = "import sys\ndef test_it():\n    pass\ndef pytest_unconfigure():\n    sys.stdout = sys.stderr = None\n"
    result = pytest_run(place.sandbox, {"conftest.py": test, "test_it.py": test})
    same("outcomes", outcomes(result), {"test_it": "passed"})
    still_works(place.sandbox)


def flood_of_forged_records_is_no_fault(place: Place) -> None:
    """What a test writes into the report is text at most: bounded, encodable, and no fault of the sandbox."""
    result = pytest_run(place.sandbox, {"test_it.py": FORGED}, PytestRun(test_cpu_s=30))
    require(len(result.records) < 10, f"{len(result.records)} records were kept")
    for record in result.records:
        (record.id + record.outcome + record.message).encode()
    still_works(place.sandbox)


def state_of_a_tests_process_ends_with_it(place: Place) -> None:
    """What a test does to its interpreter is not seen by a later run."""
    bend = "import builtins, os, sys, mod\n"
    bend += "def test_it():\n    builtins.left = sys.modules['left'] = 1\n    os.environ['LEFT'] = mod.x\n"
    same("outcomes", outcomes(pytest_run(place.sandbox, {"test_it.py": bend, "mod.py": "x = '1'"})), PASSED)
    look = "import builtins, os, sys, mod\ndef test_it():\n    assert not hasattr(builtins, 'left') and mod.x == '2'\n"
    look += "    assert 'left' not in sys.modules and 'LEFT' not in os.environ\n"
    same("outcomes", outcomes(pytest_run(place.sandbox, {"test_it.py": look, "mod.py": "x = '2'"})), PASSED)
    same("the environment", python(place.sandbox, "import os; print(os.environ.get('LEFT'))").output, "None\n")


SURROUNDINGS = """
import gc, locale, os, random, resource, signal, sys, tempfile, threading, warnings
import pytest
STATE = {
    "arguments": lambda: (sys.argv, __name__, os.getcwd()),
    "path": lambda: sys.path,
    "environment": lambda: sorted(os.environ.items()),
    "limits": lambda: [resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in LIMITS],
    "signals": lambda: [(n, str(signal.getsignal(n))) for n in range(1, 30) if n not in ALARMS],
    "mask": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, []),
    "chance": lambda: (random.random(), hash("x"), tempfile.gettempdir()),
    "interpreter": lambda: (sys.getrecursionlimit(), gc.isenabled(), gc.get_threshold(), sys.flags, sys.executable),
    "warnings": lambda: [(action, kind.__name__, module, line) for action, _, kind, module, line in warnings.filters],
    "locale": lambda: (locale.setlocale(locale.LC_ALL), sys.getfilesystemencoding(), sys.stdout.encoding),
    "process": lambda: (threading.active_count(), os.getsid(0) == os.getpid(), os.umask(0o22)),
    "descriptors": lambda: len(os.listdir("/proc/self/fd")),
}
ALARMS = (signal.SIGALRM, signal.SIGPROF)
LIMITS = ("CPU", "FSIZE", "CORE", "AS", "DATA", "NOFILE", "NPROC", "STACK")

@pytest.mark.parametrize("name", sorted(STATE))
def test_state(name): pytest.fail(repr(STATE[name]()), pytrace=False)
"""
PASSED = {"test_it": "passed"}
FORGED = r"""
import os

def test_floods_the_report():
    lines = [b"[" * 100000, b'{"id": "x"}', b'{"id": 1, "outcome": {}, "message": "\\ud800", "seconds": 1e999}',
             b'{"id": "x", "outcome": "passed", "message": "", "seconds": %s}' % (b"9" * 4000), b"\xff", b""]
    for fd in range(3, 64):
        for line in lines:
            try: os.write(fd, line + b"\n")
            except OSError: pass
    for fd in range(3, 64):
        try:
            for _ in range(4): os.write(fd, b"\n" * 1000000)
        except OSError: pass
"""
CHECKS = (
    Check(each_test_is_reported_with_its_outcome),
    Check(tests_are_named_as_pytest_names_them),
    Check(arguments_choose_the_tests),
    Check(failures_can_end_a_run),
    Check(messages_hold_nothing_of_the_machine),
    Check(import_path_reaches_what_a_test_starts),
    Check(forked_and_cold_runs_agree),
    Check(forked_and_cold_runs_have_the_same_surroundings),
    Check(modules_of_the_tree_come_first),
    Check(only_the_named_tests_are_run),
    Check(environment_is_that_of_a_new_interpreter),
    Check(end_of_the_process_ends_the_report),
    Check(broken_streams_do_not_return_into_the_runner),
    Check(flood_of_forged_records_is_no_fault),
    Check(state_of_a_tests_process_ends_with_it),
)
