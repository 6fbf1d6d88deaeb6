"""The conformance suite: what every backend must do, tried on a real one. `repo-agent sandbox check` runs it.

A backend passes if every check is conformant or not promised; what it does not promise it says itself (`Promises`),
and the reports of its runs show that. A new backend is finished when it passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sandboxes.base import SandboxBackend
from sandboxes.conformance import boundary, cleanliness, commands, limits, lives, scoring, trees, verdicts
from sandboxes.conformance.checking import Check, CheckResult, Place, run_check

CHECKS: tuple[Check, ...] = (
    *commands.CHECKS,
    *limits.CHECKS,
    *trees.CHECKS,
    *verdicts.CHECKS,
    *scoring.CHECKS,
    *cleanliness.CHECKS,
    *boundary.CHECKS,
    *lives.CHECKS,
)


def run_checks(
    backend: SandboxBackend,
    on_done: Callable[[CheckResult], None] = lambda result: None,
    checks: Sequence[Check] = CHECKS,
) -> list[CheckResult]:
    """Every check in turn; `on_done` hears of each as it ends. Faults of a sandbox are results and not raised."""
    results = []
    with Place(backend) as place:
        for check in checks:
            results.append(run_check(check, place))
            on_done(results[-1])
    return results
