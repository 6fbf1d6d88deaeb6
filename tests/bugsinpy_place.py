"""The small BugsInPy world, and the commands of ours that are run on it: each in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import ImageNotFound

from sandboxes import leftovers
from sandboxes.base import SandboxError
from sandboxes.cache_directory import CACHE_VARIABLE, cache_directory
from sandboxes.docker_images import pulled_image
from sandboxes.image_store import stored_images
from sandboxes.python_images import base_image
from suites.bugsinpy.status import BugStatus, read_status, user_status_file
from suites.bugsinpy.suite import DATA_SET_VARIABLE, BugsinpySuite
from suites.fetch import MIRROR_VARIABLE
from tests.bugsinpy_world import World, build_world

ROOT = Path(__file__).parent.parent
WITHIN_S = 30.0


@dataclass
class Place:
    """The world, a cache of its own, and what the commands that were run there have said."""

    directory: Path
    world: World
    said: dict[str, str] = field(default_factory=dict)
    """What the commands said that made the place."""

    @property
    def cache(self) -> Path:
        return self.directory / "cache"

    @property
    def environment(self) -> dict[str, str]:
        return {
            MIRROR_VARIABLE: str(self.world.mirror),
            DATA_SET_VARIABLE: f"{self.world.metadata}@{self.world.commit}",
            CACHE_VARIABLE: str(self.cache),
            "COLUMNS": "200",
            "PYTHONPATH": str(ROOT),
        }

    def ended(self, *arguments: str, more: Mapping[str, str] | None = None) -> tuple[int, str]:
        """The exit code of a command, and what it has printed."""
        done = self.start(*arguments, more=more)
        printed = done.communicate()[0].decode()
        return done.returncode, printed

    def run(self, *arguments: str, more: Mapping[str, str] | None = None) -> str:
        """What a command prints; it has to end well."""
        code, printed = self.ended(*arguments, more=more)
        assert code == 0, printed
        return printed

    def start(self, *arguments: str, more: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "repo_agent", *arguments],
            env={**os.environ, **self.environment, **(more or {})},
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def kill(self, process: subprocess.Popen[bytes], when: Callable[[], bool]) -> list[str]:
        """End a command without a warning once that holds; what is left of it on the engine after a while."""
        wait_for(lambda: when() or process.poll() is not None)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with leftovers.engine() as client:
            wait_for(lambda: not left_by(client, process.pid))
            return left_by(client, process.pid)

    def eval(self, name: str, suite: str, *flags: str, more: Mapping[str, str] | None = None) -> str:
        """What an evaluation prints; its run directory has that name."""
        return self.run("eval", "--suite", suite, "--trace-dir", name, *flags, more=more)

    def report(self, name: str) -> Any:
        return json.loads((self.directory / name / "report.json").read_text())

    def scores(self, name: str) -> dict[str, float | None]:
        """By bug."""
        return {rollout["task"]: rollout["score"] for rollout in self.report(name)["rollouts"]}

    @property
    def reproduced(self) -> list[str]:
        return [bug.id for bug in self.world.bugs if bug.state == "reproduced"]

    @property
    def status_file(self) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            self.enter(patch)
            return user_status_file(self.world.commit)

    @property
    def status(self) -> dict[str, BugStatus]:
        return read_status(self.status_file)

    def enter(self, patch: pytest.MonkeyPatch) -> None:
        """Let this process be there, too."""
        for name, value in self.environment.items():
            patch.setenv(name, value)

    def images(self, part: str = "") -> list[str]:
        """The names of the images that bugs need, built or not."""
        with pytest.MonkeyPatch.context() as patch:
            self.enter(patch)
            return sorted(spec.image for spec in BugsinpySuite(part=part).environments())


def need_base_images(*pythons: str) -> None:
    """Skip with the reason where environments of these Pythons cannot be built; where CI requires Docker, fail."""
    try:
        with leftovers.engine(300) as client:
            for python in pythons:
                pulled_image(client, base_image(python), "")
    except SandboxError as error:
        if os.environ.get("CI") and os.environ.get("REPO_AGENT_REQUIRE_DOCKER") == "1":
            pytest.fail(f"Docker is required here: {error}")
        pytest.skip(f"no Docker with old Pythons: {error}")


def new_place(directory: Path) -> Place:
    """A place whose pip shares its downloads with the other tests."""
    place = Place(directory, build_world(directory))
    place.cache.mkdir()
    (cache_directory() / "pip").mkdir(parents=True, exist_ok=True)
    (place.cache / "pip").symlink_to((cache_directory() / "pip").resolve())
    return place


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it holds, or for long enough."""
    deadline = time.monotonic() + WITHIN_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def left_by(client: docker.DockerClient, pid: int) -> list[str]:
    """What a process has on the engine."""
    return [f"{item.form} {item.id}" for item in leftovers.find(client) if f":{pid}:" in item.owner]


def has_container(process: subprocess.Popen[bytes]) -> bool:
    with leftovers.engine() as client:
        return bool(left_by(client, process.pid))


def there(images: Sequence[str]) -> set[str]:
    """Those that the engine has."""
    with leftovers.engine() as client:
        return set(images) & {image.name for image in stored_images(client)}


def remove(images: Sequence[str]) -> None:
    with leftovers.engine() as client:
        for image in images:
            with contextlib.suppress(ImageNotFound):
                client.images.remove(image, force=True)
