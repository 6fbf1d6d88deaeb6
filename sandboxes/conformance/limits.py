"""Checks of what a run may use: each limit ends or fails the run alone, and is named."""

from __future__ import annotations

import signal

from sandboxes.base import Limit, Limits, PytestRun, Resources
from sandboxes.conformance.checking import (
    Check,
    Place,
    outcomes,
    pytest_run,
    python,
    require,
    same,
    sh,
    still_works,
)

SMALL = Resources(memory_bytes=256 * 2**20)
BOMB = "blocks = []\nwhile True: blocks.append(bytearray(b'x' * 10_000_000))"
BOMB_IN_A_TEST = "def test_bomb():\n    blocks = []\n    while True: blocks.append(bytearray(b'x' * 10_000_000))\n"
TOGETHER = """
import os, sys, time
for _ in range(4):
    if os.fork() == 0:
        block = bytearray(b"x" * 100_000_000)
        time.sleep(30)
        os._exit(0)
ends = [os.WTERMSIG(os.wait()[1])]
print(ends)
"""
FORK_BOMB = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
PROCESSES = "ls /proc | grep -c '^[0-9]'"
MAX_PROCESSES = 5
"""The runner, a first process in its namespaces, and this command's own three."""
FILLER = """
for number in range(100):
    try: open("%s/filler-%%d" %% number, "wb").write(b"x" * 2_000_000)
    except OSError as error: print(error.strerror); break
"""


def processor_limit_ends_a_busy_loop(place: Place) -> None:
    """A process over its CPU seconds dies of SIGXCPU, and Limit.CPU says so."""
    result = python(place.sandbox, "while True: pass", Limits(cpu_s=1, wall_s=60))
    same("code and limits", (result.exit_code, result.hit), (-signal.SIGXCPU, {Limit.CPU}))
    require(result.timed_out, "the run is not reported as timed out")


def processor_limit_holds_where_its_signal_is_ignored(place: Place) -> None:
    """A process that ignores SIGXCPU is killed a second later, and Limit.CPU says so."""
    code = "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    result = python(place.sandbox, code, Limits(cpu_s=1, wall_s=60))
    same("code and limits", (result.exit_code, result.hit), (-signal.SIGKILL, {Limit.CPU}))


def wall_limit_ends_a_sleep(place: Place) -> None:
    """A run over its wall-clock seconds is killed, SIGTERM ignored or not; what it wrote before is kept."""
    result = sh(place.sandbox, "trap '' TERM INT HUP; echo before; sleep 1000", Limits(wall_s=0.3))
    found = (result.exit_code, result.hit, result.output)
    same("code, limits, output", found, (-signal.SIGKILL, {Limit.WALL}, "before\n"))
    require(result.timed_out, "the run is not reported as timed out")


def limits_of_one_run_are_not_those_of_the_next(place: Place) -> None:
    """Limits come with each run, and a limit that was hit is told once."""
    sh(place.sandbox, "yes", Limits(wall_s=0.2, output_bytes=100, file_bytes=100, cpu_s=1))
    result = python(place.sandbox, "open('big', 'wb').write(b'x' * 100_000); print('y' * 5000)")
    same("code, limits, output", (result.exit_code, result.hit, len(result.output)), (0, frozenset(), 5001))


def file_size_limit_holds(place: Place) -> None:
    """Writing a larger file fails in the program, as it does everywhere."""
    result = python(place.sandbox, "open('big', 'wb').write(b'x' * 2_000_000)", Limits(file_bytes=1_000_000))
    same("exit code", result.exit_code, 1)
    require("File too large" in result.output, f"the output does not say so: {result.output!r}")


def memory_bomb_fails_alone(place: Place) -> None:
    """A process that takes all memory is killed or refused; the runner lives on."""
    with place.own(SMALL) as sandbox:
        result = python(sandbox, BOMB)
        ended = result.exit_code == -signal.SIGKILL or "MemoryError" in result.output
        require(ended and not result.timed_out, f"the bomb ended as {result}")
        still_works(sandbox)


def memory_bomb_in_a_test_fails_alone(place: Place) -> None:
    """A test that takes all memory has not passed; the runner lives on."""
    with place.own(SMALL) as sandbox:
        result = pytest_run(sandbox, {"test_it.py": BOMB_IN_A_TEST})
        require(outcomes(result).get("test_bomb") != "passed", "the test is said to have passed")
        still_works(sandbox)


def memory_limit_is_one_for_all_processes(place: Place) -> None:
    """Processes that take too much memory together are killed, and Limit.MEMORY says so."""
    with place.own(SMALL) as sandbox:
        result = python(sandbox, TOGETHER)
        require(Limit.MEMORY in result.hit, f"no limit of memory was hit: {result}")
        still_works(sandbox)


def fork_bomb_is_contained(place: Place) -> None:
    """Processes over the limit are refused, Limit.PIDS says so, and all are gone before the next run."""
    with place.own(Resources(pids=64)) as sandbox:
        same("limits", python(sandbox, FORK_BOMB, Limits(wall_s=1.5)).hit, {Limit.WALL, Limit.PIDS})
        left = sh(sandbox, PROCESSES).output.strip()
        require(left.isdecimal() and int(left) <= MAX_PROCESSES, f"{left} processes are there after a fork bomb")
        still_works(sandbox)


def disk_filler_is_contained(place: Place) -> None:
    """The tree and the temporary files have a bounded place; Limit.DISK says that it was full at a run's end."""
    with place.own(Resources(disk_bytes=16 * 2**20)) as sandbox:
        for folder in (".", "/tmp"):
            result = python(sandbox, FILLER % folder)
            same(f"output of filling {folder}", result.output, "No space left on device\n")
            same(f"limits of filling {folder}", result.hit, {Limit.DISK})
            still_works(sandbox)


def full_disk_that_was_emptied_is_no_limit(place: Place) -> None:
    """Room comes back with each run: one may fill the place again that the one before it filled."""
    with place.own(Resources(disk_bytes=16 * 2**20)) as sandbox:
        code = "for _ in range(2): open('/tmp/big', 'wb').write(b'x' * 12_000_000)"
        for _ in range(2):
            same("code and limits", ((result := python(sandbox, code)).exit_code, result.hit), (0, frozenset()))


def slow_test_fails_and_the_others_run(place: Place) -> None:
    """A test over its own CPU or wall-clock seconds has failed, with the reason; Limit.TEST says so."""
    result = pytest_run(place.sandbox, {"test_slow.py": SLOW_TESTS}, PytestRun(test_cpu_s=0.2, test_wall_s=0.4))
    slow = ("test_busy", "test_sleep", "test_swallows_exceptions")
    wanted = {"test_before": "passed"} | dict.fromkeys(slow, "failed") | {"test_after": "passed"}
    same("outcomes", outcomes(result), wanted)
    same("limits", result.hit, {Limit.TEST})
    silent = [record.id for record in result.records[1:-1] if "over the limit of" not in record.message]
    same("tests whose message does not say so", silent, [])


def unending_test_ends_with_the_run(place: Place) -> None:
    """A test that cannot be interrupted ends the run at the run's limit; what came before it is known."""
    run = PytestRun(test_cpu_s=0.1, test_wall_s=10)
    result = pytest_run(place.sandbox, {"test_slow.py": UNENDING}, run, Limits(cpu_s=1, wall_s=60))
    require(Limit.CPU in result.hit, f"the limit is not named: {result.hit}")
    same("outcomes", outcomes(result), {"test_before": "passed"})


SLOW_TESTS = """
import time

def test_before():
    pass

def test_busy():
    while True:
        pass

def test_sleep():
    time.sleep(1000)

def test_swallows_exceptions():
    while True:
        try:
            while True:
                pass
        except Exception:
            pass

def test_after():
    pass
"""
UNENDING = """
def test_before():
    pass

def test_swallows_everything():
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass

def test_after():
    pass
"""
CHECKS = (
    Check(processor_limit_ends_a_busy_loop),
    Check(processor_limit_holds_where_its_signal_is_ignored),
    Check(wall_limit_ends_a_sleep),
    Check(limits_of_one_run_are_not_those_of_the_next),
    Check(file_size_limit_holds),
    Check(memory_bomb_fails_alone),
    Check(memory_bomb_in_a_test_fails_alone),
    Check(memory_limit_is_one_for_all_processes, needs="memory_limit"),
    Check(fork_bomb_is_contained, needs="pids_limit"),
    Check(disk_filler_is_contained, needs="boundary"),
    Check(full_disk_that_was_emptied_is_no_limit, needs="boundary"),
    Check(slow_test_fails_and_the_others_run),
    Check(unending_test_ends_with_the_run),
)
