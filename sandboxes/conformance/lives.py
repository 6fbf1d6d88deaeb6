"""Checks of sandboxes as such: many at once, many threads on one, and what they do when they are closed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from sandboxes.base import ExecResult, Isolation, PytestRun, Resources, Sandbox, SandboxError
from sandboxes.conformance.checking import (
    Check,
    NotConformant,
    Place,
    messages,
    outcomes,
    pytest_run,
    require,
    same,
    sh,
    still_works,
    tree_of,
)

END_S = 60.0
"""Wall-clock seconds after which a closed sandbox's run counts as not ended."""


def backend_says_what_it_is(place: Place) -> None:
    """A name, the versions that run the tests, and an identity that does not change."""
    backend = place.backend
    require(backend.name and backend.isolation in Isolation, "no name or no isolation level")
    require({"python", "pytest"} <= backend.about.keys(), f"the versions are not told: {backend.about}")
    require(backend.identity(), "no identity")
    same("identity", backend.identity(), backend.identity())
    told = tuple(backend.about[name] for name in ("python", "pytest"))
    for cold in (False, True):
        (message,) = messages(pytest_run(place.sandbox, {"test_it.py": VERSIONS}, PytestRun(cold=cold)), 1)
        require(f"E   AssertionError: {told}" in message, f"told are {told}, a test says {message!r}")


VERSIONS = "import platform, pytest\ndef test_it():\n    assert 0, (platform.python_version(), pytest.__version__)\n"


def prepared_sandboxes_are_as_any_other(place: Place) -> None:
    """Being told how many sandboxes will be opened is a hint and binds nobody."""
    place.backend.prepare(Resources(), "", 2)
    for _ in range(3):
        with place.own() as sandbox:
            still_works(sandbox)


def sandboxes_run_at_the_same_time(place: Place) -> None:
    """Several sandboxes work side by side, and none sees the tree of another."""

    def work(number: int) -> set[str]:
        tree = tree_of({"name.txt": f"tree {number}\n"})
        with place.own() as sandbox:
            return {sh(sandbox, "cat name.txt; sleep 0.05; ls", tree=tree).output for _ in range(3)}

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(work, range(3)))
    same("outputs", found, [{f"tree {number}\nname.txt\n"} for number in range(3)])


def threads_may_share_a_sandbox(place: Place) -> None:
    """Runs that several threads ask of one sandbox do not mix."""

    def work(number: int) -> tuple[str, dict[str, str]]:
        said = sh(place.sandbox, "cat name.txt; ls", tree=tree_of({"name.txt": f"tree {number}\n"})).output
        result = pytest_run(place.sandbox, {"test_it.py": f"def test_{number}(): pass\n"})
        return said, outcomes(result)

    _ = place.sandbox
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, range(8)))
    same("results", found, [(f"tree {n}\nname.txt\n", {f"test_{n}": "passed"}) for n in range(8)])


def closed_sandbox_runs_nothing(place: Place) -> None:
    """After `close`, and after the end of its block, a sandbox raises SandboxError; closing twice is closing once."""
    with place.own() as sandbox:
        still_works(sandbox)
        sandbox.close()
        sandbox.close()
        _refuses(sandbox)
    with place.own() as never_used:
        pass
    _refuses(never_used)


def closing_ends_what_runs(place: Place) -> None:
    """A sandbox that is closed from another thread ends its run with SandboxError, and other sandboxes go on."""
    with place.own() as sandbox:
        running = _in_thread(lambda: sh(sandbox, "sleep 1000"))
        threading.Event().wait(0.5)
        require(not running.done(), "the run ended before its sandbox was closed")
        sandbox.close()
        try:
            raise NotConformant(f"the run ended as {running.result(timeout=END_S)}")
        except TimeoutError:
            raise NotConformant("the run goes on in a closed sandbox") from None
        except SandboxError:
            pass
        _refuses(sandbox)
    still_works(place.sandbox)


def _refuses(sandbox: Sandbox) -> None:
    try:
        result = sh(sandbox, "echo ran")
    except SandboxError:
        return
    raise NotConformant(f"a closed sandbox ran a command: {result}")


def _in_thread(function: Callable[[], ExecResult]) -> Future[ExecResult]:
    """Like an executor's `submit`, in a thread that nothing waits for."""
    result: Future[ExecResult] = Future()

    def run() -> None:
        try:
            result.set_result(function())
        except SandboxError as error:
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return result


CHECKS = (
    Check(backend_says_what_it_is),
    Check(prepared_sandboxes_are_as_any_other),
    Check(sandboxes_run_at_the_same_time),
    Check(threads_may_share_a_sandbox),
    Check(closed_sandbox_runs_nothing),
    Check(closing_ends_what_runs),
)
