"""Checks of scoring runs: the driver's canaries are unseen where all is well, and tell where it is not."""

from __future__ import annotations

from sandboxes.base import Command, ExecResult, PytestRun
from sandboxes.canaries import WRONG
from sandboxes.conformance.checking import Check, Place, outcomes, require, same, tree_of
from sandboxes.workspace import Workspace

TESTS = "from mod import double\ndef test_two(): assert double(2) == 4\ndef test_odd(): assert double(1) == 3\n"
HONEST = tree_of({"mod.py": "def double(n): return 2 * n\n", "test_mod.py": TESTS, "tests/test_more.py": TESTS})
HALF, ALL_PASSED = {"test_two": "passed", "test_odd": "failed"}, {"test_two": "passed", "test_odd": "passed"}


def scored(place: Place, base: Workspace = HONEST, **edits: str) -> ExecResult:
    """A scoring run of a tree, with some modules edited."""
    for name, text in edits.items():
        base = base.write(f"{name}.py", text.encode())
    return place.sandbox.run(base, Command(PytestRun(("test_mod.py",), scoring=True)))


def canaries_are_not_among_the_records(place: Place) -> None:
    """A scoring run reports the target's tests alone, and finds nothing wrong with an honest one."""
    result = scored(place)
    same("outcomes", outcomes(result), HALF)
    same("tampered, missing", (result.tampered, result.canaries_missing), ("", False))
    leaked = [record.id for record in result.records if not record.id.startswith("test_mod.py::")]
    same("records that are not the target's", leaked, [])


def canary_with_the_wrong_outcome_is_told(place: Place) -> None:
    """A target that makes every test pass makes the canaries pass that must fail."""
    result = scored(place, mod="import pytest\npytest.Function.runtest = lambda self: None\ndouble = int\n")
    same("outcomes", outcomes(result), ALL_PASSED)
    same("tampered", result.tampered, WRONG)


def missing_canary_is_told(place: Place) -> None:
    """A target that ends the run before its end is told by the canaries that did not come."""
    result = scored(place, mod="import os\ndef double(n): os._exit(0)\n")
    same("code and missing", (result.exit_code, result.canaries_missing), (0, True))


def value_equal_to_everything_is_told(place: Place) -> None:
    """An edit whose values compare equal to everything is told, though its tests pass; the task's own may do so."""
    wildcard = "class Any:\n    def __eq__(self, other): return True\ndef double(n): return Any()\n"
    same("tampered after an edit", scored(place, mod=wildcard).tampered, "a compared value is equal to everything")
    own = scored(place, tree_of({"mod.py": wildcard, "test_mod.py": TESTS}))
    same("outcomes and tampered where it is the task's", (outcomes(own), own.tampered), (ALL_PASSED, ""))


def canaries_are_told_whatever_is_chosen(place: Place) -> None:
    """Nothing, the root, a folder or a file may be chosen: each canary is there, once."""
    for args in ((), (".",), ("tests",), ("tests/test_more.py::test_two",)):
        result = place.sandbox.run(HONEST, Command(PytestRun(args, scoring=True)))
        same(f"tampered, missing with {args}", (result.tampered, result.canaries_missing), ("", False))
        require("tests/test_more.py::test_two" in {record.id for record in result.records}, f"{args} was not run")


CHECKS = (
    Check(canaries_are_not_among_the_records),
    Check(canary_with_the_wrong_outcome_is_told),
    Check(missing_canary_is_told),
    Check(value_equal_to_everything_is_told),
    Check(canaries_are_told_whatever_is_chosen),
)
