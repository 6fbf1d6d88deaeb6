"""Every backend, at every isolation level, directly and through the pool, does what the conformance suite asks for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from harness import sandbox_cli
from sandboxes.base import Isolation, Promises, SandboxBackend, Wall
from sandboxes.bubblewrap_sandbox import BubblewrapBackend
from sandboxes.conformance import boundary, commands, limits, trees, verdicts
from sandboxes.conformance.checking import Check, CheckResult, Outcome, Place, run_check, sh
from sandboxes.conformance.suite import CHECKS, run_checks
from sandboxes.docker_sandbox import DockerBackend
from sandboxes.local_sandbox import LocalBackend
from sandboxes.pool import Pool
from tests.conftest import RUN_ID

BARE = Promises(boundary=False, separate_user=False, memory_limit=False, pids_limit=False, wall=Wall.REMOVAL)
WALLED = Promises(boundary=True, separate_user=False, memory_limit=False, pids_limit=False, wall=Wall.REMOVAL)
USERS = Promises(boundary=True, separate_user=True, memory_limit=True, pids_limit=True, wall=Wall.USER)
NAMESPACES = Promises(boundary=True, separate_user=True, memory_limit=True, pids_limit=True, wall=Wall.NAMESPACES)


def docker(
    isolation: Isolation = Isolation.CONTAINER, image: str = "", mounts: bool = True, namespaces: bool = True
) -> DockerBackend:
    """A backend that finds no mounts, or no namespaces, as on an engine elsewhere or a stricter one."""
    backend = DockerBackend(image, f"{RUN_ID}-conformance", isolation)
    if not (mounts and namespaces):
        backend._mounts, backend._refused = mounts, not namespaces
        assert backend._trial
        backend._trial.close()
        backend._trial = None
    return backend


VARIANTS: dict[str, tuple[Callable[[], SandboxBackend], Promises]] = {
    "docker-container": (docker, USERS),
    "docker-run": (lambda: docker(Isolation.RUN), NAMESPACES),
    "docker-run-users": (lambda: docker(Isolation.RUN, namespaces=False), USERS),
    "docker-container-shipped": (lambda: docker(mounts=False), USERS),
    "docker-run-shipped": (lambda: docker(Isolation.RUN, mounts=False), NAMESPACES),
    "docker-container-pool": (lambda: Pool(docker()), USERS),
    "docker-run-pool": (lambda: Pool(docker(Isolation.RUN)), NAMESPACES),
    "bubblewrap": (BubblewrapBackend, WALLED),
    "bubblewrap-container-pool": (lambda: Pool(BubblewrapBackend()), WALLED),
    "bubblewrap-run-pool": (lambda: Pool(BubblewrapBackend(Isolation.RUN)), WALLED),
    "local": (LocalBackend, BARE),
    "local-container-pool": (lambda: Pool(LocalBackend()), BARE),
    "local-run-pool": (lambda: Pool(LocalBackend(Isolation.RUN)), BARE),
}
for number, old in enumerate(os.environ.get("REPO_AGENT_OLD_IMAGES", "").split()):
    VARIANTS[f"docker-run-{old}"] = (partial(docker, Isolation.RUN, old), NAMESPACES)
    if number == 0:  # the oldest has both
        VARIANTS[f"docker-container-{old}"] = (partial(docker, image=old), USERS)
FAST = ("local",)
LONG_CHECKS = (
    commands.processor_time_is_counted,
    limits.processor_limit_holds_where_its_signal_is_ignored,
    limits.fork_bomb_is_contained,
    limits.unending_test_ends_with_the_run,
    verdicts.forked_and_cold_runs_agree,
)


def variant(name: str) -> object:
    marks = [pytest.mark.docker] if name.startswith("docker") else []
    return pytest.param(name, marks=marks + ([] if name in FAST else [pytest.mark.slow]))


def one(check: Check) -> object:
    marks = [pytest.mark.slow] if check.function in LONG_CHECKS else []
    return pytest.param(check, marks=marks, id=check.name.replace(" ", "_"))


@pytest.fixture(scope="module", params=[variant(name) for name in VARIANTS])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A place over each backend in turn."""
    request.getfixturevalue(f"{request.param.partition('-')[0]}_backend")  # or the test is skipped
    backend = VARIANTS[request.param][0]()
    try:
        assert backend.promises == VARIANTS[request.param][1]
        with Place(backend) as opened:
            yield opened
    finally:
        backend.close()


@pytest.mark.parametrize("check", [one(check) for check in CHECKS])
def test_backend_does_what_it_must(place: Place, check: Check) -> None:
    result = run_check(check, place)
    if result.outcome is Outcome.NOT_PROMISED:
        pytest.skip(result.why)
    assert result.outcome is Outcome.CONFORMANT, f"{result.why}\n\n{check.doc}"


# ---- the suite itself


def test_checks_have_names_and_say_what_must_be() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS) > 70
    assert [check.name for check in CHECKS if not check.doc or "\n" in check.doc] == []


class Boastful(LocalBackend):
    """A backend that promises what it cannot keep."""

    promises = USERS


HARMLESS = [
    Check(check, "boundary")
    for check in (
        boundary.files_of_the_host_are_not_visible,
        boundary.processes_of_the_host_are_not_visible,
        boundary.run_has_no_privileges,
        trees.run_cannot_change_the_tree_it_is_graded_by,
    )
]
"""Checks that do nothing worse than look where there is no boundary."""


@pytest.fixture
def boastful() -> Iterator[SandboxBackend]:
    backend = Boastful()
    yield backend
    backend.close()


def test_promise_that_is_not_kept_is_told(boastful: SandboxBackend) -> None:
    results = run_checks(boastful, checks=HARMLESS)
    assert [result.outcome for result in results] == [Outcome.NOT_CONFORMANT] * len(HARMLESS)
    assert all(result.why and not result.good for result in results)


def test_what_is_not_promised_is_not_tried(local_backend: LocalBackend) -> None:
    results = run_checks(local_backend, checks=HARMLESS)
    assert {(result.outcome, result.why) for result in results} == {
        (Outcome.NOT_PROMISED, "the backend does not promise boundary")
    }


def loses_its_sandbox(place: Place) -> None:
    """Kills the runner."""
    sh(place.sandbox, "kill -9 $PPID; sleep 1000")


def test_sandbox_that_fails_is_an_error_and_the_next_check_has_another(local_backend: LocalBackend) -> None:
    heard: list[CheckResult] = []
    results = run_checks(local_backend, heard.append, [Check(loses_its_sandbox), CHECKS[0]])
    assert [result.outcome for result in results] == [Outcome.ERROR, Outcome.CONFORMANT]
    assert heard == results


# ---- repo-agent sandbox check


def test_command_prints_promises_and_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sandbox_cli, "CHECKS", (CHECKS[0], HARMLESS[0]))
    assert sandbox_cli.main(["check", "--sandbox", "local"]) == 0
    printed, said = capsys.readouterr()
    assert "local, isolation container\npromises: boundary no, " in printed
    assert "\nconformant      exit code and both streams come back\nnot promised    files of the host" in printed
    assert printed.endswith("\n2 checks: 1 conformant, 1 not promised\n")
    assert "no security boundary" in said


def test_command_fails_for_a_backend_that_is_not_conformant(
    boastful: SandboxBackend, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sandbox_cli, "CHECKS", (CHECKS[0], HARMLESS[0]))
    monkeypatch.setattr(sandbox_cli, "open_backend", lambda *_: (boastful, []))
    assert sandbox_cli.main(["check"]) == sandbox_cli.EXIT_NOT_CONFORMANT
    assert "\nnot conformant  files of the host are not visible" in capsys.readouterr().out
