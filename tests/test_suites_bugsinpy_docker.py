"""BugsInPy from end to end on the small world: images built by pip, validation, evaluation and replay, in Docker."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import docker
import pytest
from docker.errors import ImageNotFound

from suites.bugsinpy.status import BugStatus, State, read_status, user_status_file
from suites.bugsinpy.suite import BugsinpySuite
from tests.bugsinpy_world import World, WorldBug, build_world

pytestmark = [pytest.mark.docker, pytest.mark.slow]
IMAGES = 3
STATES = {"no_repository": State.NO_ENVIRONMENT}


@dataclass
class Place:
    """The world, and what the commands that were run there have said."""

    directory: Path
    world: World
    images: tuple[str, ...]
    validation: str = ""

    def run(self, *arguments: str) -> str:
        """What a command of ours prints; it has to end well."""
        command = [sys.executable, "-m", "repo_agent", *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def evaluated(self, policy: str) -> dict[str, float | None]:
        """Scores by bug."""
        run = self.directory / policy
        self.run("eval", "--suite", "bugsinpy", "--llm-provider", policy, "--trace-dir", str(run))
        rollouts = json.loads((run / "report.json").read_text())["rollouts"]
        return {rollout["task"]: rollout["score"] for rollout in rollouts}


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """The world, validated with images that were built for that. Outside of pytest's own directories: the replay at the
    end of the session knows nothing of another data set."""
    with TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        directory = Path(scratch)
        world = build_world(directory)
        patch.setenv("REPO_AGENT_MIRROR", str(world.mirror))
        patch.setenv("REPO_AGENT_BUGSINPY", f"{world.metadata}@{world.commit}")
        patch.setenv("REPO_AGENT_CACHE", str(directory / "cache"))
        patch.setenv("COLUMNS", "200")
        images = tuple(sorted(spec.image for spec in BugsinpySuite().environments()))
        remove(images)
        try:
            place = Place(directory, world, images)
            place.validation = place.run("suites", "validate", "bugsinpy", "--repeat", "3")
            yield place
        finally:
            remove(images)


def remove(images: tuple[str, ...]) -> None:
    client = docker.from_env()
    for image in images:
        try:
            client.images.remove(image, force=True)
        except ImageNotFound:
            continue
    client.close()


@pytest.fixture(scope="module")
def status(place: Place) -> dict[str, BugStatus]:
    return read_status(user_status_file(place.world.commit))


def expected_state(bug: WorldBug) -> State:
    return STATES.get(bug.state) or State(bug.state)


def test_every_bug_comes_out_in_its_state(place: Place, status: dict[str, BugStatus]) -> None:
    assert {name: one.state for name, one in status.items()} == {
        bug.id: expected_state(bug) for bug in place.world.bugs
    }


def test_tests_come_out_as_they_are(place: Place, status: dict[str, BugStatus]) -> None:
    for bug in place.world.bugs:
        if bug.state == "reproduced":
            assert set(status[bug.id].failing) == set(bug.failing), bug.id
            assert set(status[bug.id].expected) == set(bug.expected), bug.id


def test_flaky_tests_are_quarantined_by_name_and_no_others(place: Place, status: dict[str, BugStatus]) -> None:
    for bug in place.world.bugs:
        quarantined = set(status[bug.id].quarantined)
        assert quarantined <= set(bug.flaky), bug.id
        assert bool(quarantined) == bool(bug.flaky), bug.id


def test_what_cannot_be_used_is_explained_in_one_line(place: Place, status: dict[str, BugStatus]) -> None:
    for one in status.values():
        assert bool(one.why) == (one.state is not State.REPRODUCED), one.bug
        assert "\n" not in one.why, one.bug
    assert "inkwell/ghost" in status["ghost-1"].why
    assert "cannot be built" in status["tally-16"].why


def test_bugs_share_images(place: Place) -> None:
    client = docker.from_env()
    there = {tag for image in client.images.list() for tag in image.tags}
    client.close()
    assert len(there & set(place.images)) == IMAGES


def test_what_was_relaxed_is_told_and_kept_in_the_image(place: Place, status: dict[str, BugStatus]) -> None:
    client = docker.from_env()
    (image,) = (name for name in place.images if name.endswith(status["tally-14"].environment))
    labels = client.images.get(image).labels
    client.close()
    assert list(json.loads(labels["repo-agent.relaxed"])) == ["six==99.0.0"]
    assert list(json.loads(labels["repo-agent.dropped"])) == ["requirements-txt==1.0.0"]
    assert "relaxed: six==99.0.0 -> " in place.validation


def test_the_fixes_score_one_and_nothing_scores_zero(place: Place) -> None:
    reproduced = {bug.id for bug in place.world.bugs if bug.state == "reproduced"}
    assert place.evaluated("reference") == dict.fromkeys(reproduced, 1.0)
    assert place.evaluated("noop") == dict.fromkeys(reproduced, 0.0)
    place.run("replay", str(place.directory / "reference"))


def test_a_second_validation_builds_nothing(place: Place) -> None:
    said = place.run("suites", "validate", "bugsinpy:ferry-1")
    assert "building" not in said
