"""The environments that a suite's tasks are played in, where tasks of one suite need different ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from harness.errors import UsageError
from harness.records import Task
from sandboxes.image_store import stored_images
from sandboxes.leftovers import engine
from sandboxes.python_images import BuildFailure, Built, Outcome, PythonImages
from sandboxes.python_spec import PythonSpec
from suites.base import SubsetSuite, Suite

MEGABYTE = 10**6


@runtime_checkable
class HasEnvironments(Protocol):
    """A suite whose tasks need images."""

    def environments(self) -> Mapping[PythonSpec, Sequence[str]]:
        """The ids of the tasks that each environment is for."""


def environments_of(suite: Suite) -> dict[PythonSpec, tuple[str, ...]]:
    """The ids of a suite's tasks by the environment that they need. Raises UsageError where it needs none."""
    if isinstance(suite, SubsetSuite):
        wanted = set(suite.ids)
        every = environments_of(suite.whole)
        chosen = {spec: tuple(task for task in tasks if task in wanted) for spec, tasks in every.items()}
        return {spec: tasks for spec, tasks in chosen.items() if tasks}
    if not isinstance(suite, HasEnvironments):
        raise UsageError(f"suite {suite.name} needs no images")
    found = {spec: tuple(tasks) for spec, tasks in suite.environments().items()}
    if not found:
        raise UsageError(f"no task of {suite.name} can be given an environment")
    return found


def prepare(
    suite: Suite, tasks: Sequence[Task], jobs: int, say: Callable[[str], None], template: str = ""
) -> dict[str, str]:
    """Build what tasks need and the engine lacks: the tasks that cannot be played, and why in one line each.

    Raises SandboxUnavailable where there is no engine.
    """
    wanted = {task.id for task in tasks}
    users = {spec: wanted.intersection(ids) for spec, ids in environments_of(suite).items()}
    needed = [spec for spec, ids in users.items() if ids]
    with PythonImages(template, say) as images:
        missing = [spec for spec in needed if not images.image_id(spec)]
        if missing:
            say(f"{len(missing)} of {len(needed)} environments are missing: building them")
        outcomes = images.build_all(missing, jobs, lambda outcome: say(described(outcome)))
    failed = {outcome.spec: outcome.why for outcome in outcomes if isinstance(outcome, BuildFailure)}
    return {task: f"its environment cannot be built: {why}" for spec, why in failed.items() for task in users[spec]}


def deviations_of(images: Iterable[str]) -> list[str]:
    """A line for each of these images that does not hold what was asked for. Raises SandboxError."""
    wanted = set(images)
    with engine() as client:
        stored = [image for image in stored_images(client) if image.name in wanted]
    lines = []
    for image in stored:
        relaxed = [f"{line} -> {version}" for line, version in image.recorded("relaxed").items()]
        changes = [("relaxed", relaxed), ("left out", list(image.recorded("dropped")))]
        said = "; ".join(f"{kind} {', '.join(found)}" for kind, found in changes if found)
        lines += [f"environment {image.fingerprint} (Python {image.said('python')}): {said}"] if said else []
    return lines


def described(outcome: Outcome) -> str:
    """What has come of one build, in a line."""
    spec = outcome.spec
    head = f"{spec.fingerprint}  Python {spec.python}"
    if isinstance(outcome, BuildFailure):
        return f"{head}  FAILED: {outcome.why}"
    if not outcome.made:
        return f"{head}  is there"
    line = f"{head}  {outcome.seconds:.0f} s  {outcome.own_bytes / MEGABYTE:.0f} MB"
    return "  ".join([line, *_deviations(outcome)])


def _deviations(built: Built) -> list[str]:
    """What is not as the requirements say."""
    installed = built.installed
    relaxed = [f"{line} -> {version}" for line, version in installed.relaxed.items()]
    dropped = [f"{line} ({why})" for line, why in installed.dropped.items()]
    kinds = {"relaxed": relaxed, "dropped": dropped, "added": list(installed.added)}
    return [f"{kind}: {', '.join(found)}" for kind, found in kinds.items() if found]
