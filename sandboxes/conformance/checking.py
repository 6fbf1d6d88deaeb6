"""What a check is made of: a place to try things, a way to say what is wrong, and the result."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Self

from sandboxes.base import Command, ExecResult, Limits, PytestRun, Resources, Sandbox, SandboxBackend, SandboxError
from sandboxes.workspace import File, MappingTree, Workspace

Promise = Literal["", "boundary", "separate_user", "memory_limit", "pids_limit"]
"""A field of `Promises` that must be true for a check to mean anything; empty for what every backend owes."""
EMPTY, LIMITS = Workspace(MappingTree({})), Limits()
MAX_SHOWN = 600


class NotConformant(Exception):
    """The backend does not do what it must; the message says what it did instead."""


class Outcome(StrEnum):
    """What became of a check."""

    CONFORMANT = "conformant"
    NOT_CONFORMANT = "not conformant"
    NOT_PROMISED = "not promised"
    """The backend declares that it cannot do this; nothing was run."""
    ERROR = "error"
    """The sandbox failed, which says nothing of what was checked."""


class Place:
    """A backend under check, and a sandbox that its checks share: each proves that the one before left nothing."""

    def __init__(self, backend: SandboxBackend) -> None:
        self.backend = backend
        self._shared: Sandbox | None = None

    @property
    def sandbox(self) -> Sandbox:
        """The shared sandbox. Raises SandboxError."""
        if self._shared is None:
            self._shared = self.backend.open(Resources())
        return self._shared

    @contextmanager
    def own(self, resources: Resources | None = None) -> Iterator[Sandbox]:
        """A sandbox for one check alone. Raises SandboxError."""
        with self.backend.open(resources or Resources()) as sandbox:
            yield sandbox

    def drop(self) -> None:
        """Have a new shared sandbox next time; the old one is not to be trusted any more."""
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()


@dataclass(frozen=True)
class Check:
    """One thing that a backend must do; `function` raises NotConformant where it does not."""

    function: Callable[[Place], None]
    needs: Promise = ""

    @property
    def name(self) -> str:
        return self.function.__name__.replace("_", " ")

    @property
    def doc(self) -> str:
        return (self.function.__doc__ or "").strip()


@dataclass(frozen=True)
class CheckResult:
    """What a check found; `why` is empty for a conformant backend."""

    check: Check
    outcome: Outcome
    why: str = ""

    @property
    def good(self) -> bool:
        return self.outcome in (Outcome.CONFORMANT, Outcome.NOT_PROMISED)


def run_check(check: Check, place: Place) -> CheckResult:
    """One check. Faults of the sandbox are a result; anything else that is raised is a bug of the check."""
    if check.needs and not getattr(place.backend.promises, check.needs):
        return CheckResult(check, Outcome.NOT_PROMISED, f"the backend does not promise {check.needs}")
    try:
        check.function(place)
    except NotConformant as error:
        place.drop()
        return CheckResult(check, Outcome.NOT_CONFORMANT, str(error))
    except SandboxError as error:
        place.drop()
        return CheckResult(check, Outcome.ERROR, str(error))
    return CheckResult(check, Outcome.CONFORMANT)


# ---- saying what is wrong


def require(condition: object, said: str) -> None:
    """Raises NotConformant."""
    if not condition:
        raise NotConformant(said)


def same(what: str, found: object, wanted: object) -> None:
    """Raises NotConformant where a value is not the one that it must be."""
    require(found == wanted, f"{what}: {_shown(found)} instead of {_shown(wanted)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN // 2]} ... {text[-MAX_SHOWN // 2 :]}"


# ---- running things


def tree_of(files: Mapping[str, str | bytes | File]) -> Workspace:
    return Workspace(MappingTree({path: f.encode() if isinstance(f, str) else f for path, f in files.items()}))


def sh(sandbox: Sandbox, script: str, limits: Limits = LIMITS, tree: Workspace = EMPTY) -> ExecResult:
    return sandbox.run(tree, Command(("sh", "-c", script), limits=limits))


def python(sandbox: Sandbox, code: str, limits: Limits = LIMITS, tree: Workspace = EMPTY) -> ExecResult:
    return sandbox.run(tree, Command(("python3", "-c", code), limits=limits))


def pytest_run(
    sandbox: Sandbox, files: Mapping[str, str], run: PytestRun | None = None, limits: Limits = LIMITS
) -> ExecResult:
    return sandbox.run(tree_of(files), Command(run or PytestRun(), limits=limits))


def outcomes(result: ExecResult) -> dict[str, str]:
    """Outcomes by the last part of a test's id."""
    return {record.id.rpartition("::")[2]: record.outcome for record in result.records}


def messages(result: ExecResult, count: int) -> list[str]:
    """The messages of the tests that were run. Raises NotConformant where they are not so many."""
    require(len(result.records) == count, f"{len(result.records)} tests were run and not {count}: {_shown(result)}")
    return [record.message for record in result.records]


def json_of(result: ExecResult) -> Any:
    """What a run wrote as JSON. Raises NotConformant where it is none."""
    try:
        return json.loads(result.output)
    except ValueError:
        raise NotConformant(f"the output is not what was written: {_shown(result)}") from None


def still_works(sandbox: Sandbox) -> None:
    """Raises NotConformant where the next run is not as any other."""
    result = sh(sandbox, "echo next")
    same("the next run", (result.exit_code, result.output, result.hit), (0, "next\n", frozenset()))
