"""Which sandboxes work here: in each that there is, a test is run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import docker

from eval.doctor import CALL_S, Check, Finding, broken, missing, ok
from sandboxes.base import Command, PytestRun, Resources, SandboxBackend, SandboxError, SandboxUnavailable
from sandboxes.docker_images import DEFAULT_IMAGE
from sandboxes.leftovers import engine
from sandboxes.run_scope import LABEL
from sandboxes.workspace import MappingTree, Workspace

SANDBOXES = ("sandbox docker", "sandbox bubblewrap", "sandbox local")
ENGINE_FIX = "start the Docker engine (sudo systemctl start docker), or name another one in DOCKER_HOST"
REACH_FIX = "sudo usermod -aG docker $USER, then log in again"
CHECK_FIX = "repo-agent sandbox check --sandbox {}"
_TREE = {"test_doctor.py": b"def test_it() -> None:\n    assert 6 * 7 == 42\n"}
_GB = 1e9


def checks() -> list[Check]:
    return [
        Check("Docker engine", _engine, ENGINE_FIX),
        Check("sandbox docker", _docker, CHECK_FIX.format("docker")),
        Check("sandbox bubblewrap", _bubblewrap, CHECK_FIX.format("bubblewrap")),
        Check("sandbox local", _local, CHECK_FIX.format("local")),
    ]


def base_image() -> str:
    return os.environ.get("REPO_AGENT_BASE_IMAGE") or DEFAULT_IMAGE


def _engine() -> Iterator[Finding]:
    """The engine, and what it has of images."""
    try:
        with engine(CALL_S) as client:
            yield ok("Docker engine", f"version {client.version()['Version']}, {client.info()['NCPU']} cores")
            yield _base(client)
            yield _environments(client)
    except SandboxUnavailable as error:
        refused = "Permission denied" in str(error.__cause__)
        said = "this user may not talk to it" if refused else "none answers"
        yield (broken if refused else missing)("Docker engine", said, REACH_FIX if refused else ENGINE_FIX)


def _has(client: docker.DockerClient, name: str) -> bool:
    return bool(client.images.list(name=name))


def _base(client: docker.DockerClient) -> Finding:
    if _has(client, base_image()):
        return ok("base image", base_image())
    fix = f"docker pull {base_image()}, or name an image with Python in REPO_AGENT_BASE_IMAGE (--base-image)"
    return missing("base image", f"the engine has no {base_image()}", fix)


def _environments(client: docker.DockerClient) -> Finding:
    images = client.images.list(filters={"label": f"{LABEL}.fingerprint"})
    if not images:
        return missing("task environments", "none; only bugsinpy needs them", "repo-agent images build bugsinpy")
    size = sum(image.attrs["Size"] for image in images) / _GB
    return ok("task environments", f"{len(images)} images, {size:.1f} GB at most (they share layers)")


def _docker() -> Iterator[Finding]:
    from sandboxes.docker_sandbox import DockerBackend

    try:
        with engine(CALL_S) as client:
            there = _has(client, base_image())
    except SandboxUnavailable:
        there = False
    if there:  # else opening it would pull the image
        yield _tried("docker", DockerBackend)
    else:
        yield missing("sandbox docker", "no engine, or no base image: see there", "")


def _bubblewrap() -> Iterator[Finding]:
    from sandboxes.bubblewrap_sandbox import BubblewrapBackend

    yield _tried("bubblewrap", BubblewrapBackend)


def _local() -> Iterator[Finding]:
    from sandboxes.local_sandbox import LocalBackend

    yield _tried("local", LocalBackend)


_NOTES = {"local": " (no security boundary: for what no model wrote)"}
_INSTALL = {"bubblewrap": "sudo apt-get install bubblewrap", "local": "pip install pytest"}
_KERNEL = "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1), or use Docker"


def _tried(name: str, open_backend: Callable[[], SandboxBackend]) -> Finding:
    """A test is run in it."""
    began = time.monotonic()
    try:
        with closing(open_backend()) as backend, backend.open(Resources()) as sandbox:
            result = sandbox.run(Workspace(MappingTree(_TREE)), Command(PytestRun()))
    except SandboxUnavailable as error:
        if "not installed" in str(error):
            return missing(f"sandbox {name}", error, _INSTALL.get(name, ""))
        return broken(f"sandbox {name}", error, _KERNEL if name == "bubblewrap" else CHECK_FIX.format(name))
    except SandboxError as error:
        return broken(f"sandbox {name}", error, CHECK_FIX.format(name))
    if [each.outcome for each in result.records] != ["passed"]:
        return broken(f"sandbox {name}", f"a test does not pass in it: {result.output}", CHECK_FIX.format(name))
    seconds = time.monotonic() - began
    return ok(f"sandbox {name}", f"a test ran in it, {seconds:.1f} s with its start{_NOTES.get(name, '')}")
