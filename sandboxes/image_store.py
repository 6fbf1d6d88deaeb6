"""The images of Python environments that an engine has: what they are, whether they work, and their removal."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import docker
import docker.errors
import docker.models.images

from sandboxes.base import Command, PytestRun, Resources, SandboxError
from sandboxes.docker_channel import engine_faults
from sandboxes.docker_sandbox import DockerBackend
from sandboxes.python_spec import REPOSITORY, PythonSpec
from sandboxes.run_scope import LABEL, RunScope
from sandboxes.workspace import MappingTree, Workspace

PROBE = """
import json, subprocess, sys
said = {"python": "%d.%d" % sys.version_info[:2], "pytest": ""}
try:
    import pytest
    said["pytest"] = pytest.__version__
except Exception as error:
    said["fault"] = "pytest cannot be imported: %s" % error
check = subprocess.run([sys.executable, "-m", "pip", "check"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
said["check"] = check.stdout.decode().splitlines() if check.returncode else []
print(json.dumps(said))
"""
NOBODY = "65534:65534"


@dataclass(frozen=True)
class StoredImage:
    """One image with our labels."""

    id: str
    name: str
    """Empty where the tag has moved on to a later image."""
    labels: Mapping[str, str]
    created: float
    """Unix time."""
    size_bytes: int
    own_bytes: int
    """What lies on top of its base image."""
    base_layers: tuple[str, ...]

    def said(self, label: str) -> str:
        return self.labels.get(f"{LABEL}.{label}", "")

    @property
    def fingerprint(self) -> str:
        return self.said("fingerprint")

    @property
    def spec(self) -> PythonSpec:
        """What it was made from. Raises ValueError where its labels do not say it."""
        return spec_of(self.labels)

    def recorded(self, label: str) -> dict[str, str]:
        """What `relaxed` or `dropped` says."""
        found: dict[str, str] = json.loads(self.said(label) or "{}")
        return found


def spec_of(labels: Mapping[str, str]) -> PythonSpec:
    """The spec that labels state, which must be the one of their fingerprint. Raises ValueError."""
    try:
        made_from = json.loads(labels[f"{LABEL}.requirements"])
        spec = PythonSpec(made_from["python"], tuple(made_from["requirements"]), tuple(made_from["extras"]))
        stated = labels[f"{LABEL}.fingerprint"]
    except (KeyError, TypeError, json.JSONDecodeError):
        raise ValueError("its labels do not say what it was made from") from None
    if spec.fingerprint != stated:
        raise ValueError(f"its labels say {stated}, but were made from {spec.fingerprint}")
    return spec


def stored_images(client: docker.DockerClient) -> list[StoredImage]:
    """All that the engine has, the oldest first. Raises SandboxError."""
    found = []
    with engine_faults("list images"):
        for each in client.api.images(filters={"label": f"{LABEL}.fingerprint"}):
            with contextlib.suppress(docker.errors.ImageNotFound):  # somebody removes it meanwhile
                found += [_stored(client, each)] if _is_ours(each) else []
    return sorted(found, key=lambda image: (image.created, image.name))


def _is_ours(listed: Mapping[str, Any]) -> bool:
    """Not an image that somebody has made from one of them, labels and all."""
    names = _names(listed)
    return not names or any(name.startswith(f"{REPOSITORY}:") for name in names)


def _names(listed: Mapping[str, Any]) -> list[str]:
    return [name for name in listed.get("RepoTags") or [] if name != "<none>:<none>"]


def _stored(client: docker.DockerClient, listed: Mapping[str, Any]) -> StoredImage:
    name = next((name for name in _names(listed) if name.startswith(f"{REPOSITORY}:")), "")
    image = client.images.get(listed["Id"])
    layers = tuple(image.attrs["RootFS"]["Layers"])
    return StoredImage(
        listed["Id"], name, listed["Labels"], listed["Created"], listed["Size"], top_bytes(image), layers[:-1]
    )


def top_bytes(image: docker.models.images.Image) -> int:
    """The size of the last layer, which is all that a build adds to its base."""
    size: int = image.history()[0]["Size"]
    return size


def disk_bytes(images: Iterable[StoredImage]) -> tuple[int, int]:
    """What images take on the disk: their own layers, and the base images' counted once each."""
    bases = {image.base_layers: image.size_bytes - image.own_bytes for image in images}
    return sum(image.own_bytes for image in images), sum(bases.values())


def is_current(image: StoredImage) -> bool:
    """Whether today's recipe makes an image of this fingerprint."""
    try:
        return image.spec.image == image.name
    except ValueError:
        return False


def remove_image(client: docker.DockerClient, image: StoredImage) -> str:
    """Remove an image; why it stays, where it does."""
    try:
        client.api.remove_image(image.name or image.id)
    except docker.errors.NotFound:
        return ""
    except docker.errors.APIError as error:
        return str(error.explanation)
    return ""


# ---- verify


@dataclass(frozen=True)
class Verified:
    """What is wrong with an image; what `pip check` says of it is no fault, since old pins contradict each other."""

    faults: Sequence[str]
    inconsistent: Sequence[str] = ()
    pytest: str = ""


def verify_image(client: docker.DockerClient, scope: RunScope, image: StoredImage) -> Verified:
    """Start an image as a sandbox does, and run a test in it."""
    try:
        spec = image.spec
        said = _probed(client, scope, image.id)
    except (ValueError, SandboxError) as error:
        return Verified([str(error)])
    faults = [said["fault"]] if "fault" in said else []
    if said["python"] != spec.python:
        faults.append(f"its Python is {said['python']}, not {spec.python}")
    return Verified(faults or _played(image), said["check"], said["pytest"])


def _probed(client: docker.DockerClient, scope: RunScope, image: str) -> dict[str, Any]:
    """What another user than root sees."""
    scope.guard()
    with engine_faults("start a container"):
        container = client.containers.create(
            image,
            ["python3", "-c", PROBE],
            entrypoint=[],
            user=NOBODY,
            network_mode="none",
            labels=scope.labels("verify"),
            use_config_proxy=False,
        )
        try:
            container.start()
            code = container.wait()["StatusCode"]
            output = container.logs(stdout=True, stderr=bool(code)).decode(errors="replace").strip()
        finally:
            container.remove(v=True, force=True)
    if code:
        raise SandboxError(f"its Python does not start: {output[-100:]}")
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def _played(image: StoredImage) -> list[str]:
    """What is wrong with a run of one test by the guest's pytest."""
    tree = Workspace(MappingTree({"test_verify.py": b"def test_verify():\n    assert True\n"}))
    try:
        backend = DockerBackend(image.id)
        try:
            if not backend.identity(image.id).startswith(image.id):
                return ["it is not fit for tests as it is"]
            with backend.open(Resources(), image.id) as sandbox:
                result = sandbox.run(tree, Command(PytestRun()))
        finally:
            backend.close()
    except SandboxError as error:
        return [str(error)]
    passed = [record.outcome for record in result.records] == ["passed"]
    return [] if passed else [f"a test that must pass does not: {result.output.strip()[-100:]}"]
