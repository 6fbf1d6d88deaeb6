"""What tasks need before they can be played: their trees and images on this machine, and a backend that runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.errors import UsageError
from harness.progress import notice
from harness.records import Task
from sandboxes.base import Isolation, SandboxBackend
from sandboxes.choose import open_backend
from sandboxes.no_sandbox import NONE
from suites.base import Suite


def runs_code(task: Task) -> bool:
    """It has tests: a question has none, and is graded in process."""
    return bool(task.expected_tests or task.test_args)


def prepared(suite: Suite, tasks: Sequence[Task], workers: int) -> tuple[list[Task], list[str]]:
    """The tasks that can be played here; a line for each that cannot, and for each image that is not as was asked for.

    Progress goes to standard error.
    """
    left_out: Mapping[str, str] = suite.prepare(tasks, workers, notice)
    lines = [f"left out: {task}: {why}" for task, why in left_out.items()]
    playable = [task for task in tasks if task.id not in left_out]
    images = {task.image for task in playable if task.image}
    if images:
        from suites.environments import deviations_of  # it needs Docker's client, which other suites do not

        lines += deviations_of(images)
    return playable, lines


def open_for(
    tasks: Sequence[Task],
    choice: str,
    base_image: str = "",
    trusted: bool = False,
    isolation: Isolation = Isolation.CONTAINER,
    workers: int = 2,
) -> tuple[SandboxBackend, list[str]]:
    """As `sandboxes.choose.open_backend`; tasks with images of their own need Docker, and no base image; tasks without
    tests need no sandbox.

    Raises:
        UsageError: another sandbox was asked for.
        SandboxUnavailable: see there.
    """
    if tasks and not any(map(runs_code, tasks)):
        if choice not in ("auto", NONE):
            raise UsageError(f"questions are graded without a sandbox: leave --sandbox {choice} out")
        return open_backend(NONE)
    image = next((task.image for task in tasks if task.image), "")
    if not image:
        return open_backend(choice, base_image, trusted, isolation, workers)
    if choice not in ("auto", "docker"):
        raise UsageError(
            f"tasks such as {tasks[0].id} have images of their own: they need --sandbox docker, not {choice}"
        )
    return open_backend("docker", image, trusted, isolation, workers)
