"""What `repo-agent doctor` finds out, and how: every check in a thread of its own, none of which is waited for long."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness.redaction import Redactor

_ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 10.0
CALL_S = 5
"""Of one question that a check asks of something else, an engine for example."""


class Health(StrEnum):
    """What a thing is found to be."""

    OK = "ok"
    MISSING = "missing"
    """It is not there; nobody may need it."""
    BROKEN = "broken"
    """It is there and does not work, or it stands in the way."""


@dataclass(frozen=True)
class Finding:
    """One line. `fix` is a command, or what to do, for what is not ok."""

    name: str
    health: Health
    said: str
    fix: str = ""


@dataclass(frozen=True)
class Check:
    """`find` gives the lines of one thing. What it raises, and that it takes too long, is a finding too."""

    name: str
    find: Callable[[], Iterable[Finding]]
    fix: str = ""
    """Where it takes too long."""


def ok(name: str, said: str) -> Finding:
    return Finding(name, Health.OK, said)


def missing(name: str, said: object, fix: str) -> Finding:
    return Finding(name, Health.MISSING, str(said), fix)


def broken(name: str, said: object, fix: str = "") -> Finding:
    return Finding(name, Health.BROKEN, " ".join(str(said).split())[:300], fix)


def run_checks(checks: Sequence[Check], timeout_s: float = TIMEOUT_S) -> list[Finding]:
    """All findings in the order of the checks, after `timeout_s` seconds at the latest, secrets masked."""
    found: dict[str, list[Finding]] = {}
    threads = [threading.Thread(target=_run, args=(check, found), daemon=True) for check in checks]
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = {check.name: [_late(check, timeout_s)] for check in checks}
    return [_masked(finding) for check in checks for finding in found.get(check.name, late[check.name])]


def _run(check: Check, found: dict[str, list[Finding]]) -> None:
    try:
        found[check.name] = list(check.find())
    except Exception as error:  # noqa: BLE001 - whatever a broken installation raises is what is to be told
        found[check.name] = [broken(check.name, f"{type(error).__name__}: {error}", check.fix)]


def _late(check: Check, timeout_s: float) -> Finding:
    return broken(check.name, f"no answer within {timeout_s:g} s", check.fix or "repo-agent doctor --timeout 60")


def _masked(finding: Finding) -> Finding:
    redact = Redactor()
    return Finding(finding.name, finding.health, redact(finding.said), redact(finding.fix))


def asked(*argv: str, timeout_s: float = CALL_S) -> str | None:
    """What a program says; None where it is not there, fails or takes too long."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def in_child(code: str, timeout_s: float) -> dict[str, Any]:
    """What a Python program prints as JSON in its last line, run in a process that is killed when it takes too long.

    A key `error` says why there is nothing else.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(_ROOT)!r})\n{code}"],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {timeout_s:g} s (repo-agent doctor --timeout 60 waits longer)"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    said: dict[str, Any] = json.loads(lines[-1])
    return said
